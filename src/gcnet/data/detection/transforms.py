"""What happens to an image and its objects on the way to a detector in training: size, mirror, colours, sound boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gcnet.errors import GcnetError

Target = dict[str, Any]
DetectionTransform = Callable[[Image.Image, Target], tuple[Tensor, Target]]


def detection_train_transform(
    *, sizes: Sequence[int], max_size: int, flip: bool = True, photometric: bool = False
) -> DetectionTransform:
    """Resized, mirrored half of the time, with changed colours if wanted; boxes clipped, empty ones dropped.

    Args:
        sizes: short sides in pixels, of which each image gets one at random (multi-scale training).
        max_size: upper bound of the long side in pixels.
        flip: mirror left and right with probability 1/2.
        photometric: random brightness, contrast, saturation and hue, as SSD trains (arXiv 1512.02325).

    Returns:
        (PIL RGB image, target) -> (float32 tensor (3, H, W) of 0..1, target).
    """
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise GcnetError(f"sizes={sizes!r}; they must be whole numbers of pixels, at least one")
    if type(max_size) is not int or max_size < max(sizes):
        raise GcnetError(f"max_size={max_size!r}; it must be a whole number of at least {max(sizes)}")
    from torchvision.transforms import v2  # here, since torchvision takes seconds to import

    steps: list[Any] = [v2.RandomShortestSize(list(sizes), max_size=max_size, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if photometric:
        steps.append(v2.RandomPhotometricDistort())
    return _transform(steps)


def detection_eval_transform() -> DetectionTransform:
    """Nothing but the tensor of 0..1: a detector resizes by itself and gives boxes in the pixels of the file."""
    return _transform([])


def _transform(steps: list[Any]) -> DetectionTransform:
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    return v2.Compose(  # as it is, since other processes get it pickled
        [
            v2.ToImage(),
            *steps,
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=1, labels_getter=_by_object),
            v2.ToPureTensor(),
        ]
    )


def _by_object(inputs: Any) -> tuple[Tensor, ...]:
    """What has one entry per object beside boxes and masks, and loses those whose box is dropped."""
    target = inputs[1]
    return tuple(target[key] for key in ("labels", "iscrowd", "area"))
