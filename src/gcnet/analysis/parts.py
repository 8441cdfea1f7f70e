"""Where a model spends its parameters and MACs: stem, stages and head (of a detector: heads), or its children."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from gcnet.analysis.observe import Observation
from gcnet.errors import RewriteError
from gcnet.surgery.families import find_stages

PartOf = Callable[[str], str | None]  # a module's name -> the part that it belongs to, where its name tells it


@dataclass(frozen=True)
class Part:
    """The parameters and MACs of one part of a model, and its share of the model's MACs.

    The part is a stage (all units of one output stride and what leads to them, "c2" to "c5"), "stem" (before the first
    of them) or "head" (after the last one; of a detector "fpn", "rpn", "box head", ...); a child of the model where no
    stages are known.
    """

    name: str
    params: int
    macs: int
    share: float


def parts_of(model: nn.Module, seen: Observation, images: Tensor, behind: PartOf | None = None) -> tuple[Part, ...]:
    """The parts of a model in the order in which they run; those without parameters and MACs are left out.

    Args:
        model: what was observed.
        seen: its pass.
        images: the input of that pass.
        behind: of a detector's layers the part behind the backbone that a module belongs to, by its name.
    """
    part_of, parts = _named_parts(model, images, behind)
    where: dict[str, str] = {}  # module -> part, by its first event
    macs = dict.fromkeys(parts, 0)
    for (name, count), part in zip(seen.events, _parts_of_events(seen, part_of), strict=True):
        where.setdefault(name, part)
        macs[part] = macs.get(part, 0) + count
    params = dict.fromkeys(macs, 0)
    for name, own in _own_parameters(model):
        part = next((where[above] for above in _ancestors(name) if above in where and above), None)
        part = part or (where[""] if not name else part_of(name) or "not called")
        params[part] = params.get(part, 0) + own
    total = max(seen.macs, 1)
    names = {**dict.fromkeys(macs), **dict.fromkeys(params)}
    rows = (Part(name, params.get(name, 0), macs.get(name, 0), macs.get(name, 0) / total) for name in names)
    return tuple(row for row in rows if row.params or row.macs)


def _named_parts(model: nn.Module, images: Tensor, behind: PartOf | None) -> tuple[PartOf, list[str]]:
    """A function from a module's name to its part, where the name tells it, and the parts whose order is known."""
    try:
        stages = find_stages(model, images[:1])
    except RewriteError:
        children = [] if behind else [name for name, _ in model.named_children()]
        return (lambda name: (behind and behind(name)) or name.split(".")[0] or "itself"), children
    units = {unit.name: stage for stage, stage_units in stages.items() for unit in stage_units}

    def stage_of(name: str) -> str | None:
        stage = next((units[above] for above in _ancestors(name) if above in units), None)
        return behind(name) if stage is None and behind else stage

    return stage_of, ["stem", *stages, *(() if behind else ("head",))]


def _parts_of_events(seen: Observation, part_of: PartOf) -> list[str]:
    """The part of every event: what happens between two stages leads to the second one."""
    named = [part_of(name) for name, _ in seen.events]
    parts: list[str] = []
    following, first = "head", next((i for i, part in enumerate(named) if part is not None), len(named))
    for i in reversed(range(len(named))):
        following = named[i] or following
        parts.append("stem" if i < first else following)
    return parts[::-1]


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, int]]:
    """(module, number of its own parameters), a shared parameter at its first owner."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        if own:
            yield name, sum(p.numel() for p in own)


def _ancestors(name: str) -> Iterator[str]:
    """The name itself, then those around it: "a.b.c", "a.b", "a", ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def within(name: str, outer: str) -> bool:
    """Whether a module is another one or lies in it, by their names."""
    return name == outer or name.startswith(f"{outer}.")
