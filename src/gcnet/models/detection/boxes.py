"""Boxes and masks as mmdetection handles them: NMS of groups by offsets, the choice per class, pasting of masks.

N boxes, C classes; boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

# From this many boxes on mmcv takes group after group instead of all at once.
_ALL_AT_ONCE = 10_000


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression inside each group, as mmcv does it: a box goes if its IoU with a better one is larger.

    Groups are kept apart by moving group g by g * (largest coordinate + 1). The rounding of large offsets decides near
    the threshold, so the offsets are part of the result; torchvision leaves them out above 1000 boxes on the CPU.

    Shapes: boxes (N, 4), scores (N,), groups (N,) -> the indices that stay, best first.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    moved = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
    if len(boxes) < _ALL_AT_ONCE:
        return nms(moved, scores, iou_threshold)
    stays = torch.zeros_like(scores, dtype=torch.bool)
    for group in torch.unique(groups):
        members = torch.where(groups == group)[0]
        stays[members[nms(moved[members], scores[members], iou_threshold)]] = True
    kept = torch.where(stays)[0]
    return kept[scores[kept].argsort(descending=True)]


def select_detections(
    boxes_NC4: Tensor, scores_NC: Tensor, *, score_threshold: float, iou_threshold: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of each class above the score that survive NMS, the `limit` best over all classes.

    Returns:
        boxes (K, 4), scores (K,), classes (K,) from 0, best first.
    """
    rows, classes = torch.where(scores_NC > score_threshold)
    boxes, scores = boxes_NC4[rows, classes], scores_NC[rows, classes]
    kept = batched_nms(boxes, scores, classes, iou_threshold)[:limit]
    return boxes[kept], scores[kept], classes[kept]


def in_float(values: Tensor) -> Tensor:
    """Numbers of 16 bits as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def has_area(boxes: Tensor) -> Tensor:
    """Which of the boxes (N, 4) are wider and higher than nothing."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def paste_masks(masks_N1MM: Tensor, boxes_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities of the masks in the image, 0 outside of the boxes and a pixel around them.

    mmdetection calls a pixel part of the mask from 0.5 on. torchvision rounds the boxes to whole pixels first.

    Args:
        masks_N1MM: probabilities in the boxes.
        boxes_N4: in pixels of the image.
        size: height and width of the image.

    Shape: (N, 1, *size).
    """
    height, width = size
    masks_N1MM = in_float(masks_N1MM)
    pasted = masks_N1MM.new_zeros(len(masks_N1MM), 1, height, width)
    for i, (x1, y1, x2, y2) in enumerate(boxes_N4.tolist()):
        left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, width)
        top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, height)
        if left >= right or top >= bottom:
            continue
        xs = _inside(left, right, boxes_N4[i, 0], boxes_N4[i, 2])
        ys = _inside(top, bottom, boxes_N4[i, 1], boxes_N4[i, 3])
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]
        window = F.grid_sample(masks_N1MM[i : i + 1], grid.to(masks_N1MM), align_corners=False)
        pasted[i : i + 1, :, top:bottom, left:right] = window
    return pasted


def _inside(start: int, stop: int, low: Tensor, high: Tensor) -> Tensor:
    """Where the centres of the pixels lie in the box, from -1 (low) to 1; the middle in a box without width."""
    centres = torch.arange(start, stop, device=low.device, dtype=low.dtype) + 0.5
    places = (centres - low) / (high - low) * 2 - 1
    return torch.where(places.isfinite(), places, 0.0)
