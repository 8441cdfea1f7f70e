"""The frame of a detector, as torchvision builds it: a list of images is scaled, normalised and padded to one batch.

No other file asks whether a model is a detector.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from gcnet.surgery.labels import derives

_FRAME = {"torchvision.models.detection.transform.GeneralizedRCNNTransform"}


def is_detector(model: nn.Module) -> bool:
    """Whether the model takes a list of images of any size, in torchvision's frame (a subclass of it counts)."""
    return frame_of(model) is not None


def frame_of(model: nn.Module) -> Any:
    """The child that makes a batch of the images, with its `min_size` and `max_size`; None if there is none."""
    return next((child for child in model.children() if derives(child, _FRAME)), None)


def framed(model: nn.Module, images: Sequence[Tensor]) -> Any:
    """The batch that a detector makes of images (C, H, W): its `tensors` (B, C, H, W) and `image_sizes` inside them."""
    return frame_of(model)(list(images))[0]


def before_thresholds(model: nn.Module, arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The part of the model whose outputs depend on no threshold, and its arguments: a detector's backbone, else ""."""
    if frame_of(model) is None or not hasattr(model, "backbone"):
        return "", arguments
    return "backbone", (framed(model, arguments[0]).tensors,)


@contextmanager
def small_images(model: nn.Module) -> Iterator[None]:
    """Inside, a detector scales its images to 128 pixels, not to 800: enough to see what feeds what."""
    with _changed(frame_of(model), {"min_size": (128,), "max_size": 256}):
        yield


@contextmanager
def images_as_given(model: nn.Module) -> Iterator[None]:
    """Inside, a detector in training mode takes images at the size that they come in, since the data chose it."""
    with _changed(frame_of(model), {"_skip_resize": True}):
        yield


@contextmanager
def _changed(frame: Any, attributes: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(frame, name) for name in attributes} if frame is not None else {}
    try:
        for name in before:
            setattr(frame, name, attributes[name])
        yield
    finally:
        for name, value in before.items():
            setattr(frame, name, value)
