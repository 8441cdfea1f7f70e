"""Several networks in step: part after part, each part by every network in turn.

Whole networks that take turns are seconds apart on large inputs, and a shared machine changes its speed by a tenth or
more from one second to the next. Here the turn is one residual unit, a few milliseconds, so that ratios inside a round
are quiet: with the same number of rounds the intervals become about five times narrower, at the same medians.
"""

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet

Part = Callable[[Any], Any]


def parts(model: Any) -> list[Part]:
    """A torchvision ResNet as its stem, its residual units and its head; one after the other they are the model."""

    def stem(x: torch.Tensor) -> torch.Tensor:
        return model.maxpool(model.relu(model.bn1(model.conv1(x))))

    def head(x: torch.Tensor) -> torch.Tensor:
        return model.fc(torch.flatten(model.avgpool(x), 1))

    assert isinstance(model, resnet.ResNet)
    units = [unit for i in (1, 2, 3, 4) for unit in getattr(model, f"layer{i}")]
    return [stem, *units, head]


def inference_in_step(
    models: Mapping[str, nn.Module],
    x: torch.Tensor,
    *,
    rounds: int,
    seconds: float,
    split: Callable[[Any], list[Part]] = parts,
) -> dict[str, list[float]]:
    """Seconds of each network's forward pass, one per round; no round starts after `seconds`, but one is made.

    `split` makes a network into parts of which each takes what the one before gave.
    """
    chains = {name: split(model) for name, model in models.items()}

    def one_round(turns: "Turns") -> None:
        maps: dict[str, Any] = dict.fromkeys(models, x)
        for i in range(turns.length):
            for name in turns.order():
                maps[name] = turns.timed(name, chains[name][i], maps[name])

    return _in_rounds(chains, one_round, rounds, seconds)


def training_in_step(
    models: Mapping[str, nn.Module], x: torch.Tensor, *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of each network's forward and backward pass, one per round.

    The graph is cut between the parts: each part's backward starts from the gradient that the next one left on its
    input, which is what a whole backward pass does, too.
    """
    chains = {name: parts(model) for name, model in models.items()}

    def one_round(turns: "Turns") -> None:
        ends: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in models}
        for model in models.values():
            model.zero_grad(set_to_none=True)
        for i in range(turns.length):
            for name in turns.order():
                before = ends[name][-1][1].detach().requires_grad_() if i else x
                ends[name].append((before, turns.timed(name, chains[name][i], before)))
        for name in turns.order():
            last = ends[name][-1][1]
            ends[name][-1] = (ends[name][-1][0], last.square().mean())
        for _ in range(turns.length):
            for name in turns.order():
                before, after = ends[name].pop()
                after_grad = turns.gradients.get(name)
                turns.timed(name, lambda after=after, grad=after_grad: after.backward(grad))
                turns.gradients[name] = before.grad
        turns.gradients.clear()

    return _in_rounds(chains, one_round, rounds, seconds)


class Turns:
    """The turns of one round, and the seconds that each network took in it."""

    def __init__(self, names: Sequence[str], length: int, shuffle: Callable[[list], None]) -> None:
        self.length = length
        self.seconds = dict.fromkeys(names, 0.0)
        self.gradients: dict[str, torch.Tensor | None] = {}
        self._names, self._shuffle = list(names), shuffle

    def order(self) -> list[str]:
        """The networks in a new random order."""
        self._shuffle(self._names)
        return list(self._names)

    def timed(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds[name] += time.perf_counter() - start
        return result


def _in_rounds(
    chains: Mapping[str, list[Part]], one_round: Callable[[Turns], None], rounds: int, seconds: float
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in chains}
    length = len(next(iter(chains.values())))
    assert all(len(chain) == length for chain in chains.values())
    shuffle = random.Random(0).shuffle
    collected = gc.isenabled()
    gc.disable()
    try:
        one_round(Turns(list(chains), length, shuffle))  # the first one allocates and chooses algorithms
        began, done = time.perf_counter(), 0
        while done < rounds and (not done or time.perf_counter() - began < seconds):
            turns = Turns(list(chains), length, shuffle)
            one_round(turns)
            for name, value in turns.seconds.items():
                taken[name].append(value)
            done += 1
    finally:
        if collected:
            gc.enable()
    return taken
