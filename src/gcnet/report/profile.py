"""`profile`: what a model costs, stage by stage, with and without its context blocks."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Group
from torch import Tensor, nn

from gcnet.analysis.cost import count_parameters
from gcnet.analysis.intervals import Median
from gcnet.analysis.observe import Observation, observe
from gcnet.analysis.parts import Part, parts_of, within
from gcnet.errors import GcnetError
from gcnet.report.profile_table import tables
from gcnet.report.terminal import as_text
from gcnet.rewrites import inserted
from gcnet.surgery.eager import check_model
from gcnet.surgery.frames import is_detector
from gcnet.surgery.probe import CONVS, is_channels_last
from gcnet.surgery.timing import time_side_by_side
from gcnet.tasks.detection.cost import DetectorPass


@dataclass(frozen=True)
class BlockCost:
    """The parameters and MACs that one inserted block adds."""

    name: str
    kind: str
    params: int
    macs: int


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
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["input_size"] = list(self.input_size)
        for name in ("latency", "ratio"):
            values[name] = None if values[name] is None else values[name]._asdict()
        for name in ("stages", "blocks"):
            values[name] = [dataclasses.asdict(row) for row in values[name]]
        values["without"] = None if self.without is None else self.without.to_dict()
        return values

    def __rich__(self) -> Group:
        return tables(self)

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
        >>> import torchvision, gcnet
        >>> with torch.device("meta"):
        ...     model = gcnet.insert(torchvision.models.resnet50(), "gc")
        >>> costs = gcnet.profile(model, (3, 224, 224))
        >>> costs.params - costs.without.params, f"{costs.macs / costs.without.macs - 1:.2%}"
        (2521741, '0.21%')
    """
    check_model(model)
    if rounds < 0:
        raise GcnetError(f"rounds={rounds!r} must be at least 0 (0: no timing)")
    images = _images(model, input_size)
    kind, boxes = type(model).__name__, None
    if is_detector(model):
        model = DetectorPass(model, images)
        boxes = model.count
    names = list(inserted(model))
    models = {"without": _bypassed(model, names), "with": model} if names else {"with": model}
    observed = {name: _observe(variant, images) for name, variant in models.items()}
    timings = {}
    if rounds and images.device.type != "meta":
        timings = time_side_by_side(models, images, rounds=rounds, budget=budget)

    def figures(name: str, **more: Any) -> Profile:
        variant, seen = models[name], observed[name]
        return Profile(
            model=kind,
            input_size=tuple(images.shape),
            boxes=boxes,
            device=str(images.device),
            dtype=str(images.dtype).removeprefix("torch."),
            params=count_parameters(variant),
            macs=seen.macs,
            peak_memory=seen.peak_bytes,
            latency=timings[name].seconds if timings else None,
            stages=parts_of(variant, seen, images),
            **more,
        )

    return figures(
        "with",
        blocks=tuple(_block_cost(model, name, observed["with"]) for name in names),
        without=figures("without", blocks=(), without=None, ratio=None) if names else None,
        ratio=timings["with"].ratio if names and timings else None,
    )


def _images(model: nn.Module, input_size: Sequence[int]) -> Tensor:
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


def _observe(model: nn.Module, images: Tensor) -> Observation:
    try:
        return observe(model, images)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GcnetError(f"the model does not take input_size={tuple(images.shape)}: {first}") from error


def _bypassed(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy with nothing in the place of the blocks."""
    plain = copy.deepcopy(model)
    for name in names:
        plain.set_submodule(name, nn.Identity())
    return plain


def _block_cost(model: nn.Module, name: str, seen: Observation) -> BlockCost:
    block = model.get_submodule(name)
    macs = sum(macs for where, macs in seen.events if within(where, name))
    return BlockCost(name, type(block).__name__, count_parameters(block), macs)
