"""What a model decides on held-out images, and how many of these decisions another model takes otherwise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.rewrites.simplification.calibration import run
from gcnet.surgery import record


class Decisions:
    """The classes that a model chooses: the largest entry along dimension 1 of each of its output tensors.

    Only of a model that says that it gives class scores, since the largest of other numbers means nothing: one built by
    `gcnet.create_model` (a checkpoint, a run), or one whose attribute `num_classes` is dimension 1 of its output, as
    timm's models have it. The outputs are a tensor (B, K, ...), or a tuple or list of such tensors.

    Attributes:
        count: how many there are on the images, of the output tensor that has the fewest; 0 if the model gives no class
            scores.
    """

    def __init__(self, model: nn.Module, inputs: list[Any]) -> None:
        self.inputs = inputs
        self.own: list[list[Tensor]] = []
        for images in inputs:
            scores = _scores(run(model, images), len(images))
            if not scores or not _gives_classes(model, scores):
                self.own = []
                break
            self.own.append([tensor.argmax(1) for tensor in scores])
        self.count = min((sum(map(torch.numel, tensors)) for tensors in zip(*self.own, strict=True)), default=0)

    def suffice(self, share: float) -> bool:
        """Whether so small a share can be told from none: if none of n changed, up to 3 / n may (95 % interval)."""
        return self.count > 0 and share > 0 and self.count >= 3 / share

    def changed(self, model: nn.Module) -> float:
        """Share of the decisions that the model takes otherwise; of the output tensor with the largest share."""
        changed: list[int] = []
        for images, own in zip(self.inputs, self.own, strict=True):
            new = _scores(run(model, images), len(images))
            counts = [int((a != b.argmax(1)).sum()) for a, b in zip(own, new, strict=True)]
            changed = [a + b for a, b in zip(changed or [0] * len(counts), counts, strict=True)]
        totals = [sum(map(torch.numel, tensors)) for tensors in zip(*self.own, strict=True)]
        return max((part / total for part, total in zip(changed, totals, strict=True)), default=math.nan)


def _scores(outputs: Any, images: int) -> list[Tensor]:
    """The output tensors, if all that comes out are tensors that may be class scores."""
    tensors = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    fits = all(
        isinstance(t, Tensor) and t.is_floating_point() and t.ndim >= 2 and t.shape[0] == images and t.shape[1] >= 2
        for t in tensors
    )
    return tensors if fits else []


def _gives_classes(model: nn.Module, scores: list[Tensor]) -> bool:
    if record.architecture(model) is not None:
        return True
    named = getattr(model, "num_classes", None)
    return isinstance(named, int) and all(tensor.shape[1] == named for tensor in scores)
