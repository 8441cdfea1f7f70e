"""Pasting predicted masks into the image as mmdetection does: each pixel's centre looks up its value in the box."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.models.detection.boxes import in_float


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
