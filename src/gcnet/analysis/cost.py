"""What a model and its blocks cost: parameters, multiply-accumulates, memory and time."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcnet.analysis.observe import Observation, observe
from gcnet.analysis.parts import PartOf, parts_of, within
from gcnet.analysis.results import BlockCost, Costs
from gcnet.errors import GcnetError
from gcnet.rewrites import inserted
from gcnet.surgery.probe import CONVS, is_channels_last
from gcnet.surgery.timing import Median, Timing, time_side_by_side


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode; what counts is said at `gcnet.profile`.

    The model's mode and statistics stay as they are.

    Args:
        model: any module.
        images: its input; the count is for the whole batch.
    """
    return observe(model, images).macs


def costs_of(
    model: nn.Module,
    images: Tensor,
    *,
    named: str,
    boxes: int | None = None,
    behind: PartOf | None = None,
    rounds: int,
    budget: float,
) -> Costs:
    """Count and time one forward pass, with and without the inserted blocks; what counts is said at `gcnet.profile`.

    Args:
        model: what is counted and timed.
        images: its input.
        named: what the result calls it.
        boxes: of a detector's layers how many boxes each image has.
        behind: of a detector's layers the part behind the backbone that a module belongs to, by its name.
        rounds: how often each of the two is timed; 0 leaves the latency out.
        budget: seconds after which no further round starts.
    """
    names = list(inserted(model))
    models = {"without": _bypassed(model, names), "with": model} if names else {"with": model}
    observed = {name: _observe(variant, images) for name, variant in models.items()}
    timings: dict[str, Timing] = {}
    if rounds and images.device.type != "meta":
        timings = time_side_by_side(models, images, rounds=rounds, budget=budget)

    def costs(name: str, blocks: tuple[BlockCost, ...], without: Costs | None, ratio: Median | None) -> Costs:
        variant, seen = models[name], observed[name]
        return Costs(
            model=named,
            input_size=tuple(images.shape),
            boxes=boxes,
            device=str(images.device),
            dtype=str(images.dtype).removeprefix("torch."),
            params=count_parameters(variant),
            macs=seen.macs,
            peak_memory=seen.peak_bytes,
            latency=timings[name].seconds if timings else None,
            stages=parts_of(variant, seen, images, behind),
            blocks=blocks,
            without=without,
            ratio=ratio,
        )

    blocks = tuple(_block_cost(model, name, observed["with"]) for name in names)
    without = costs("without", (), None, None) if names else None
    return costs("with", blocks, without, timings["with"].ratio if names and timings else None)


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
