"""What a model costs: parameters and multiply-accumulates, in all, of its parts and of its inserted blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gcnet.analysis.observe import Observation, observe
from gcnet.errors import GcnetError, RewriteError
from gcnet.surgery.families import find_stages
from gcnet.surgery.probe import CONVS, is_channels_last

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


@dataclass(frozen=True)
class BlockCost:
    """The parameters and MACs that one inserted block adds."""

    name: str
    kind: str
    params: int
    macs: int


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of one forward pass of the whole batch; what counts is said at `gcnet.profile`."""
    return observe(model, images).macs


def random_images(model: nn.Module, input_size: Sequence[int]) -> Tensor:
    """Random numbers of that shape on the model's device, in its dtype and memory format."""
    size = tuple(input_size) if isinstance(input_size, list | tuple) else ()
    dims = next((module.weight.ndim - 2 for module in model.modules() if isinstance(module, CONVS)), 2)
    if len(size) not in (dims + 1, dims + 2) or not all(type(n) is int and n >= 1 for n in size):
        example = ("C", "D", "H", "W") if dims == 3 else ("C", "L") if dims == 1 else ("C", "H", "W")
        raise GcnetError(
            f"input_size={input_size!r} is no shape of this model's input: "
            f"give whole numbers ({', '.join(example)}), or with the batch first ({', '.join(('B', *example))})"
        )
    size = size if len(size) == dims + 2 else (1, *size)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    generator = None if like.device.type == "meta" else torch.Generator(like.device).manual_seed(0)
    images = torch.randn(size, generator=generator, device=like.device, dtype=like.dtype)
    if images.ndim == 4 and any(map(is_channels_last, model.parameters())):
        images = images.contiguous(memory_format=torch.channels_last)
    return images


def observed(model: nn.Module, images: Tensor) -> Observation:
    """The pass of a model on random images; where it does not take them, an error that says so."""
    try:
        return observe(model, images)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GcnetError(f"the model does not take input_size={tuple(images.shape)}: {first}") from error


def bypassed(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy with nothing in the place of the blocks."""
    plain = copy.deepcopy(model)
    for name in names:
        plain.set_submodule(name, nn.Identity())
    return plain


def block_cost(model: nn.Module, name: str, seen: Observation) -> BlockCost:
    """What the block of that name adds."""
    block = model.get_submodule(name)
    macs = sum(macs for where, macs in seen.events if where == name or where.startswith(f"{name}."))
    return BlockCost(name, type(block).__name__, count_parameters(block), macs)


def parts_of(model: nn.Module, seen: Observation, images: Tensor, behind: PartOf | None = None) -> tuple[Part, ...]:
    """The parts of a model in the order in which they run; those without parameters and MACs are left out.

    `seen` is its pass on these images. Of a detector's layers `behind` tells the parts behind the backbone.
    """
    part_of, parts = _named_parts(model, images, behind)
    where: dict[str, str] = {}  # module -> part, by its first event
    macs = dict.fromkeys(parts, 0)
    for (name, count), part in zip(seen.events, _parts_of_events(seen, part_of), strict=True):
        where.setdefault(name, part)
        macs[part] = macs.get(part, 0) + count
    params = dict.fromkeys(macs, 0)
    for name, parameter in model.named_parameters():  # a shared one at its first owner
        owner = name.rpartition(".")[0]
        part = next((where[above] for above in _ancestors(owner) if above in where and above), None)
        part = part or (where[""] if not owner else part_of(owner) or "not called")
        params[part] = params.get(part, 0) + parameter.numel()
    total = max(seen.macs, 1)
    rows = (Part(name, own, macs.get(name, 0), macs.get(name, 0) / total) for name, own in params.items())
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


def _ancestors(name: str) -> Iterator[str]:
    """The name itself, then those around it: "a.b.c", "a.b", "a", ""."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""
