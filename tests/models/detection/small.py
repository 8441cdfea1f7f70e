"""Detectors of a few thousand parameters, and pictures with one bright square each."""

from typing import Any

import torch
from torch import Tensor, nn

from gcnet.models.detection import create_detector

KINDS = ("fasterrcnn", "maskrcnn", "cascade_rcnn", "cascade_maskrcnn", "retinanet")
WIDTHS = {"base_channels": 8, "fpn_channels": 16, "min_size": 64, "max_size": 96}


def small(kind: str, *, trunk: str = "resnet18", num_classes: int = 3, **options: Any) -> nn.Module:
    """A small detector; options override those of WIDTHS, None takes one away."""
    widths = dict(WIDTHS)
    if kind != "retinanet":
        widths |= {"fc_channels": 32, "proposals": (100, 30), "train_proposals": (100, 30), "rois_per_image": 32}
    if "mask" in kind:
        widths |= {"mask_channels": 8}
    given = {key: value for key, value in (widths | options).items() if value is not None}
    return create_detector(f"{kind}_{trunk}_fpn", num_classes=num_classes, **given)


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two pictures of different sizes and what is in them: labels 0 and 2."""
    images, targets = [], []
    for label, (height, width), box in ((0, (64, 64), (10, 12, 42, 44)), (2, (64, 80), (30, 8, 70, 40))):
        x1, y1, x2, y2 = box
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, y1:y2, x1:x2] = 1
        image = 0.2 * torch.rand(3, height, width)
        image[label] += 0.8 * mask[0]
        images.append(image)
        targets.append(
            {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([label]), "masks": mask}
        )
    return images, targets
