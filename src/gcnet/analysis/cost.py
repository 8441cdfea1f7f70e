"""What a model and its blocks cost: parameters, multiply-accumulates, memory, and time measured side by side."""

from __future__ import annotations

import copy
import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gcnet.analysis.intervals import Median, median_interval
from gcnet.analysis.observe import Observation, observe
from gcnet.analysis.parts import PartOf, parts_of, within
from gcnet.analysis.results import BlockCost, Costs
from gcnet.errors import GcnetError
from gcnet.rewrites import inserted
from gcnet.surgery.probe import CONVS, is_channels_last


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


@dataclass(frozen=True)
class Timing:
    """Seconds of one pass, and the ratio to the first model of the same rounds; medians with 95 % intervals."""

    seconds: Median
    ratio: Median


def time_side_by_side(
    models: Mapping[str, nn.Module], images: Tensor, *, training: bool = False, rounds: int = 20, budget: float = 60.0
) -> dict[str, Timing]:
    """Time several models in one process, in interleaved rounds, so that whatever else the machine does hits all alike.

    Each round times every model once, in a new random order; a ratio is taken inside a round. The models are copied.

    Args:
        models: name -> model; ratios are to the first.
        images: the input of all of them.
        training: time forward and backward pass in training mode (the optimiser's step is left out), else the forward
            pass in evaluation mode without gradients.
        rounds: how many rounds; at least 1.
        budget: seconds after which no further round starts; one round is always made.

    Returns:
        name -> timing, in the order given.
    """
    if not models:
        raise GcnetError("models is empty; name at least one model")
    if rounds < 1:
        raise GcnetError(f"rounds={rounds} must be at least 1")
    copies = {name: copy.deepcopy(model).train(training) for name, model in models.items()}
    step = _training_step if training else _inference
    seconds = time_in_rounds({name: partial(step, model, images) for name, model in copies.items()}, rounds, budget)
    base = seconds[next(iter(models))]
    return {
        name: Timing(median_interval(own), median_interval([a / b for a, b in zip(own, base, strict=True)]))
        for name, own in seconds.items()
    }


def time_in_rounds(functions: Mapping[str, Callable[[], object]], rounds: int, budget: float) -> dict[str, list[float]]:
    """Seconds of each function, one call per round in a new random order; a first call of each is not counted.

    No round starts after `budget` seconds, but one is always made.
    """
    for function in functions.values():  # the first call allocates and chooses algorithms
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(0).shuffle  # the library leaves the global generator alone
    began = time.perf_counter()
    collected = gc.isenabled()
    gc.disable()
    try:
        while len(seconds[order[0]]) < rounds and (not seconds[order[0]] or time.perf_counter() - began < budget):
            shuffle(order)
            for name in order:
                start = time.perf_counter()
                functions[name]()
                seconds[name].append(time.perf_counter() - start)
    finally:
        if collected:
            gc.enable()
    return seconds


def _inference(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model(images)
    _synchronize(images)


def _training_step(model: nn.Module, images: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    torch.stack([tensor.float().square().mean() for tensor in tree_leaves(model(images))]).sum().backward()
    _synchronize(images)


def _synchronize(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


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
