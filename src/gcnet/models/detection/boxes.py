"""Boxes as mmdetection handles them: deltas limited on both sides, NMS of groups by offsets, the choice per class.

N boxes, C classes; boxes are (x1, y1, x2, y2) in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import nms

# From this many boxes on mmcv takes group after group instead of all at once.
_ALL_AT_ONCE = 10_000


class TwoSidedBoxCoder(BoxCoder):
    """torchvision's coder, which limits how much a box may grow (1000 / 16), with the same limit on shrinking."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Shapes: rel_codes (N, 4 K), boxes (N, 4) -> (N, 4 K)."""
        rel_codes = in_float(rel_codes)  # bfloat16 would round a coordinate of 1000 to a multiple of 4
        _, _, width, height = self.weights
        limit = self.bbox_xform_clip
        lowest = rel_codes.new_tensor([-math.inf, -math.inf, -limit * width, -limit * height])
        return super().decode_single(torch.maximum(rel_codes, lowest.repeat(rel_codes.shape[1] // 4)), boxes)


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
