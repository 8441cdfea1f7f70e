"""How a photograph becomes the input of a model: read from timm's or torchvision's own description of it."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in 0..1
IMAGENET: dict[str, Any] = {
    "size": [224, 224],
    "resize": 256,
    "interpolation": "bilinear",
    "mean": list(MEAN),
    "std": list(STD),
    "channel_order": "RGB",
}


def default_preprocessing(name: str, model: nn.Module) -> dict[str, Any]:
    """Size, resize, interpolation, mean and std that the published weights of this classifier expect."""
    if name.startswith("timm/"):
        return _from_timm(model)
    import torchvision  # here, since it takes seconds

    try:
        published: Any = torchvision.models.get_model_weights(name)
        transforms = published.DEFAULT.transforms()
    except (ValueError, AttributeError):  # a model of torchvision without published weights
        return dict(IMAGENET)
    crop = transforms.crop_size[0]
    return IMAGENET | {
        "size": [crop, crop],
        "resize": transforms.resize_size[0],
        "interpolation": transforms.interpolation.value,
        "mean": list(transforms.mean),
        "std": list(transforms.std),
    }


def _from_timm(model: nn.Module) -> dict[str, Any]:
    import timm.data  # here, since it takes seconds

    config = timm.data.resolve_model_data_config(model)
    _, height, width = config["input_size"]
    interpolation = config["interpolation"]
    return IMAGENET | {
        "size": [height, width],
        "resize": math.floor(min(height, width) / config["crop_pct"]),
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        "mean": list(config["mean"]),
        "std": list(config["std"]),
    }


def at_size(preprocessing: dict[str, Any], size: int) -> dict[str, Any]:
    """The same preprocessing for square images of `size` pixels; the share that the centre crop keeps stays.

    Example:
        >>> at_size(IMAGENET, 112)["resize"]
        128
    """
    share = preprocessing["resize"] / min(preprocessing["size"])
    return preprocessing | {"size": [size, size], "resize": max(size, round(size * share))}
