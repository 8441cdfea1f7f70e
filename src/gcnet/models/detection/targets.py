"""What a detector is trained on: checked with words before it reaches torchvision's assertions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcnet.errors import GcnetError


def check_targets(
    images: Sequence[Tensor],
    targets: list[dict[str, Tensor]] | None,
    num_classes: int,
    first_label: int,
    *,
    masks: bool = False,
) -> list[dict[str, Tensor]]:
    """The targets with labels as torchvision counts them.

    Raises:
        ValueError: naming the target and what is wrong with it.
    """
    if targets is None or len(targets) != len(images):
        given = "none" if targets is None else str(len(targets))
        raise GcnetError(f"targets: {given} for {len(images)} images; training needs one dictionary for each image")
    return [
        target | {"labels": _labels(i, target, num_classes, masks) + first_label} for i, target in enumerate(targets)
    ]


def _labels(i: int, target: dict[str, Tensor], num_classes: int, masks: bool) -> Tensor:
    absent = [key for key in ("boxes", "labels", *(["masks"] if masks else [])) if key not in target]
    if absent:
        raise GcnetError(f"targets[{i}] has no {' and no '.join(absent)}; it has {', '.join(target) or 'nothing'}")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise GcnetError(
            f"targets[{i}]['boxes'] is {boxes.dtype} {tuple(boxes.shape)}; expected float (N, 4): x1, y1, x2, y2"
        )
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        raise GcnetError(
            f"targets[{i}]['labels'] is {labels.dtype} {tuple(labels.shape)}; expected int64 ({len(boxes)},)"
        )
    if masks and (target["masks"].ndim != 3 or len(target["masks"]) != len(boxes)):
        raise GcnetError(f"targets[{i}]['masks'] is {tuple(target['masks'].shape)}; expected ({len(boxes)}, H, W)")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise GcnetError(
            f"targets[{i}]['labels'] holds {int(labels.min())} to {int(labels.max())}; allowed are 0 to "
            f"{num_classes - 1} (num_classes={num_classes}, the background is not counted)"
        )
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(1)
    if empty.any():
        first = int(torch.where(empty)[0][0])
        raise GcnetError(
            f"targets[{i}]['boxes'][{first}] is {boxes[first].tolist()}, which has no area; boxes are x1, y1, x2, y2 "
            "with x1 < x2 and y1 < y2; leave empty ones out"
        )
    return labels
