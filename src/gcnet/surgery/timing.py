"""Time of models measured side by side: medians over interleaved rounds with intervals by order statistics."""

from __future__ import annotations

import copy
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gcnet.errors import GcnetError


class Median(NamedTuple):
    """A median with a 95 % interval for it, and the count behind it."""

    value: float
    low: float
    high: float
    count: int


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


def median_interval(values: Sequence[float]) -> Median:
    """Median with a 95 % interval from the binomial distribution of ranks, whatever the values' distribution.

    With fewer than six values no such interval exists: the extremes are given instead.
    """
    if not values:
        raise GcnetError("values is empty; a median needs at least one value")
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.5**count  # `below` = P(at most `rank` values lie under the median)
    while below + math.comb(count, rank + 1) * 0.5**count <= 0.025:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    return Median(statistics.median(ordered), ordered[rank], ordered[count - 1 - rank], count)


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
