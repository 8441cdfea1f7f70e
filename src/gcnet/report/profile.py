"""`profile` and its `Profile`: what a model costs, stage by stage, with and without its context blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import nn

from gcnet.analysis.cost import (
    BlockCost,
    Part,
    block_cost,
    bypassed,
    count_parameters,
    observed,
    parts_of,
    random_images,
)
from gcnet.errors import GcnetError
from gcnet.report.terminal import as_text, plain_table
from gcnet.rewrites import inserted
from gcnet.surgery.eager import check_model
from gcnet.surgery.timing import Median, Timing, time_side_by_side
from gcnet.tasks.table import spec_of


@dataclass(frozen=True)
class Profile:
    """What one forward pass of a model costs, in evaluation mode; see `gcnet.profile`.

    Attributes:
        model: The class of the model.
        input_size: The shape of the input, with the batch first.
        boxes: Boxes per image in the box heads; None where there are none.
        device: Where the model is.
        dtype: Of its parameters.
        params: Number of parameters.
        macs: Multiply-accumulates of the pass, of the whole batch.
        peak_memory: Bytes; the most that tensors made by the pass took at once.
        latency: Seconds of the pass: median, its 95 % interval, number of rounds. None if it was not timed.
        stages: Parts of the model in the order in which they run.
        blocks: The inserted blocks.
        without: The same figures with the blocks bypassed; None if there are none.
        ratio: Latency with blocks over without, taken inside rounds; 1.02 is a tax of 2 %. None as for `latency`.
    """

    model: str
    input_size: tuple[int, ...]
    boxes: int | None
    device: str
    dtype: str
    params: int
    macs: int
    peak_memory: int
    latency: Median | None
    stages: tuple[Part, ...]
    blocks: tuple[BlockCost, ...]
    without: Profile | None
    ratio: Median | None

    def to_dict(self) -> dict[str, Any]:
        """The figures as numbers, texts, lists and dictionaries, for JSON."""
        values: dict[str, Any] = dict(vars(self))
        values["input_size"] = list(self.input_size)
        for name in ("latency", "ratio"):
            values[name] = None if values[name] is None else values[name]._asdict()
        for name in ("stages", "blocks"):
            values[name] = [vars(row) for row in values[name]]
        values["without"] = None if self.without is None else self.without.to_dict()
        return values

    def __rich__(self) -> Group:
        return _tables(self)

    def __str__(self) -> str:
        return as_text(self, 100)


def profile(model: nn.Module, input_size: Sequence[int], *, rounds: int = 20, budget: float = 30.0) -> Profile:
    """Count and time one forward pass of a model, in evaluation mode, with and without its inserted blocks.

    - **MACs**: products of convolutions (deformable ones too), linear layers, matrix products (functional ones and
      those in attention, fused or not) as they are computed: zeros that pad for a kernel count. Additions, norms,
      activations, softmax, pooling windows, sorting, gathering and sampling do not. One MAC is two FLOPs.
    - **Peak memory**: on CUDA the allocator's high-water mark above what was there before the pass. Elsewhere the
      storages of all tensors that operators returned, counted from when they were made until they were freed: what
      the algorithm needs, independent of the machine, without the working memory inside a kernel. Weights and the
      input are not part of it.
    - **Latency**: both models in one process, interleaved; the first pass of each is left out. Not on the meta device.

    Of a detector all of this is of its layers, on images of exactly that size and on fixed boxes: as many per image as
    its RPN passes on at inference (1000) in the box heads, as many as detections are kept (100) in the mask heads.
    Scaling the images, choosing boxes (decoding, NMS) and pasting masks are neither counted nor timed.

    Args:
        model: Any eager module of one tensor, or a detector, ours or torchvision's; a model on the meta device is
            counted without computing anything.
        input_size: Shape of the input, such as (3, 224, 224), or with the batch first (8, 3, 224, 224).
        rounds: How often each model is timed; 0 leaves the latency out.
        budget: Seconds after which no further round starts.

    Raises:
        ValueError: input_size is no shape of positive sizes, the model does not take it.
        TypeError: the model is compiled, scripted or wrapped.

    Example:
        >>> import gcnet, torch, torchvision
        >>> with torch.device("meta"):
        ...     model = gcnet.insert(torchvision.models.resnet50(), "gc")
        >>> costs = gcnet.profile(model, (3, 224, 224))
        >>> costs.params - costs.without.params, f"{costs.macs / costs.without.macs - 1:.2%}"
        (2521741, '0.21%')
    """
    check_model(model)
    if rounds < 0:
        raise GcnetError(f"rounds={rounds!r} must be at least 0 (0: no timing)")
    images = random_images(model, input_size)
    counted = spec_of(model).cost(model, images)
    names = list(inserted(counted.module))
    models = {"with": counted.module}
    if names:
        models = {"without": bypassed(counted.module, names)} | models
    seen = {name: observed(variant, images) for name, variant in models.items()}
    timings: dict[str, Timing] = {}
    if rounds and images.device.type != "meta":
        timings = time_side_by_side(models, images, rounds=rounds, budget=budget)

    def figures(name: str, without: Profile | None = None) -> Profile:
        variant = models[name]
        return Profile(
            model=type(model).__name__,
            input_size=tuple(images.shape),
            boxes=counted.boxes,
            device=str(images.device),
            dtype=str(images.dtype).removeprefix("torch."),
            params=count_parameters(variant),
            macs=seen[name].macs,
            peak_memory=seen[name].peak_bytes,
            latency=timings[name].seconds if timings else None,
            stages=parts_of(variant, seen[name], images, counted.part_of),
            blocks=tuple(block_cost(variant, block, seen[name]) for block in names) if without else (),
            without=without,
            ratio=timings[name].ratio if timings and without else None,
        )

    return figures("with", figures("without") if names else None)


def _tables(profile: Profile) -> Group:
    """The totals, the parts of the model, the inserted blocks."""
    size = "x".join(str(n) for n in profile.input_size)
    boxes = "" if profile.boxes is None else f"{profile.boxes} boxes per image, "
    title = Text(f"{profile.model}, {size}, {boxes}{profile.dtype}, {profile.device}")
    parts: list[Text | Table] = [title, _totals(profile)]
    if profile.latency is not None:
        parts.append(Text(f"latency: median of {profile.latency.count} rounds and its 95 % interval"))
    plain = {} if profile.without is None else {part.name: part for part in profile.without.stages}
    extra = ["of it blocks", ""] if plain else []
    rows = []
    for part in profile.stages:
        row = [part.name, _millions(part.params), _millions(part.macs), f"{part.share:.1%}"]
        if plain:
            own = plain.get(part.name, Part(part.name, 0, 0, 0.0))
            row += [_millions(part.params - own.params), _millions(part.macs - own.macs)]
        rows.append(row)
    parts += [Text(), plain_table(["part", "params, M", "MACs, M", "share", *extra], rows)]
    if profile.blocks:
        rows = [[block.name, block.kind, _millions(block.params), _millions(block.macs)] for block in profile.blocks]
        parts += [Text(), plain_table(["block", "kind", "params, M", "MACs, M"], rows, left=(0, 1))]
    return Group(*parts)


def _totals(profile: Profile) -> Table:
    columns = ["", "params, M", "MACs, M", "peak memory, MB", "latency, ms"]
    if profile.without is None:
        return plain_table(columns, [["model", *_figures(profile)]])
    plain = profile.without
    memory = (profile.peak_memory - plain.peak_memory) / 2**20
    added = [_millions(profile.params - plain.params), _millions(profile.macs - plain.macs), f"{memory:.1f}"]
    share = [f"{profile.params / max(plain.params, 1) - 1:+.2%}", f"{profile.macs / max(plain.macs, 1) - 1:+.2%}"]
    share += [f"{profile.peak_memory / max(plain.peak_memory, 1) - 1:+.2%}"]
    rows = [["without blocks", *_figures(plain)], ["with blocks", *_figures(profile)]]
    rows += [["added", *added, ""], ["added, %", *share, _tax(profile.ratio)]]
    return plain_table(columns, rows)


def _figures(profile: Profile) -> list[str]:
    latency = profile.latency
    time = "-" if latency is None else "{:.1f} ({:.1f} to {:.1f})".format(*(1e3 * bound for bound in latency[:3]))
    return [_millions(profile.params), _millions(profile.macs), f"{profile.peak_memory / 2**20:.1f}", time]


def _tax(ratio: Median | None) -> str:
    if ratio is None:
        return "-"
    value, low, high = (bound - 1 for bound in ratio[:3])
    return f"{value:+.1%} ({low:+.1%} to {high:+.1%})"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.3f}"
