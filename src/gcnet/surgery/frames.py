"""torchvision's detectors: the frames around a backbone that rewrites and measurements must see through."""

from __future__ import annotations

import sys

from torch import nn


def is_detector(model: nn.Module) -> bool:
    """Whether it takes a list of images and finds objects: torchvision's detectors and those of `create_detector`.

    Example:
        >>> is_detector(nn.Conv2d(3, 8, 3))
        False
    """
    # Where nobody has loaded torchvision's detectors there is none, and asking costs no import of them.
    frame = sys.modules.get("torchvision.models.detection.transform")
    return frame is not None and isinstance(getattr(model, "transform", None), frame.GeneralizedRCNNTransform)
