"""From a PIL image to a model's input, as the model's own preprocessing record says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gcnet.errors import GcnetError, GcnetTypeError

Transform = Callable[[Image.Image], Tensor]

KEYS = ("size", "resize", "interpolation", "mean", "std", "channel_order")
INTERPOLATIONS = ("bilinear", "bicubic")
CHANNEL_ORDERS = ("RGB", "BGR")


def check_preprocessing(preprocessing: Mapping[str, Any]) -> None:
    """Check a preprocessing record.

    Args:
        preprocessing: "size" (H, W) of the input; "resize": short side before the centre crop, at least max(H, W);
            "interpolation": "bilinear" or "bicubic"; "mean" and "std": three numbers each, for values 0..1 in the
            channel order; "channel_order": "RGB" or "BGR".

    Raises:
        TypeError: not a mapping.
        ValueError: a key is missing, unknown, or has a value that is not allowed.
    """
    if not isinstance(preprocessing, Mapping):
        raise GcnetTypeError(f"preprocessing={preprocessing!r}; it must be a dict with the keys {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in preprocessing]
    unknown = [key for key in preprocessing if key not in KEYS]
    if missing or unknown:
        raise GcnetError(f"preprocessing: missing keys {missing}, unknown keys {unknown}; needed are {list(KEYS)}")
    size, resize = preprocessing["size"], preprocessing["resize"]
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(_is_count(side) for side in size)):
        raise GcnetError(f"preprocessing['size']={size!r}; it must be [height, width] in pixels")
    if not (_is_count(resize) and resize >= max(size)):
        raise GcnetError(f"preprocessing['resize']={resize!r}; it must be an int of at least {max(size)}, the crop")
    for key, allowed in (("interpolation", INTERPOLATIONS), ("channel_order", CHANNEL_ORDERS)):
        if preprocessing[key] not in allowed:
            raise GcnetError(f"preprocessing[{key!r}]={preprocessing[key]!r}; allowed: {', '.join(allowed)}")
    for key in ("mean", "std"):
        value = preprocessing[key]
        if not (isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, Real) for v in value)):
            raise GcnetError(f"preprocessing[{key!r}]={value!r}; it must be three numbers")
    if min(preprocessing["std"]) <= 0:
        raise GcnetError(f"preprocessing['std']={preprocessing['std']!r}; every entry must be above 0")


def train_transform(
    preprocessing: Mapping[str, Any],
    *,
    flip: bool = True,
    scale: tuple[float, float] = (0.35, 1.0),
    randaugment: int | None = None,
) -> Transform:
    """A random crop resized to the model's size, mirrored half of the time, normalised.

    Args:
        preprocessing: see `check_preprocessing`.
        flip: mirror left and right with probability 1/2.
        scale: the crop's share of the image's area, from and to, within 0..1.
        randaugment: magnitude 0..30 of two random changes of shape or colour (arXiv 1909.13719); None for none.

    Returns:
        PIL RGB image -> float32 tensor (3, H, W).
    """
    check_preprocessing(preprocessing)
    if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
        raise GcnetError(f"scale={scale!r}; it must be (from, to) with 0 < from <= to <= 1")
    if randaugment is not None and not (type(randaugment) is int and 0 <= randaugment <= 30):
        raise GcnetError(f"randaugment={randaugment!r}; allowed: None or a magnitude of 0..30")
    from torchvision.transforms import InterpolationMode, v2  # here, since torchvision takes seconds to import

    interpolation = InterpolationMode(preprocessing["interpolation"])
    size = tuple(preprocessing["size"])
    steps: list[nn.Module] = [v2.RandomResizedCrop(size, scale=scale, interpolation=interpolation)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if randaugment is not None:
        fill = [round(255 * value) for value in _mean_rgb(preprocessing)]
        steps.append(v2.RandAugment(2, randaugment, interpolation=interpolation, fill=fill))
    return v2.Compose([*steps, _to_input(preprocessing)])


def eval_transform(preprocessing: Mapping[str, Any]) -> Transform:
    """The short side resized, the centre cropped, normalised; nothing random.

    Args:
        preprocessing: see `check_preprocessing`.

    Returns:
        PIL RGB image -> float32 tensor (3, H, W).
    """
    check_preprocessing(preprocessing)
    from torchvision.transforms import InterpolationMode, v2

    interpolation = InterpolationMode(preprocessing["interpolation"])
    resize = v2.Resize(preprocessing["resize"], interpolation=interpolation, antialias=True)
    crop = v2.CenterCrop(list(preprocessing["size"]))
    return v2.Compose([LimitAspect(), resize, crop, _to_input(preprocessing)])


class LimitAspect(nn.Module):
    """Cut the long side of a PIL image, around its centre, to at most 16 times the short one.

    The centre crop that follows never sees what is cut, but 1 x 20,000 pixels resized to a short side of 224 would
    take three gigabytes.
    """

    def forward(self, image: Image.Image) -> Image.Image:
        limit = 16 * min(image.size)
        if max(image.size) <= limit:
            return image
        width, height = (min(side, limit) for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


class ToInput(nn.Module):
    """PIL RGB image -> float32 (3, H, W), channels ordered, `(values / 255 - mean) / std`.

    One step instead of torchvision's PILToTensor, ToDtype and Normalize: two copies of the image less.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channel_order: str) -> None:
        super().__init__()
        self.mean = 255 * torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.std = 255 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self.order = slice(None, None, -1) if channel_order == "BGR" else slice(None)

    def forward(self, image: Image.Image) -> Tensor:
        values = np.asarray(image)[..., self.order].transpose(2, 0, 1)
        return torch.from_numpy(values.astype(np.float32, order="C")).sub_(self.mean).div_(self.std)


def _to_input(preprocessing: Mapping[str, Any]) -> ToInput:
    return ToInput(preprocessing["mean"], preprocessing["std"], preprocessing["channel_order"])


def _mean_rgb(preprocessing: Mapping[str, Any]) -> list[float]:
    value = list(preprocessing["mean"])
    return value[::-1] if preprocessing["channel_order"] == "BGR" else value


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0
