"""What `analyze` is given, as batches: a tensor, an iterable of batches, or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from gcnet.data.classification.transforms import eval_transform
from gcnet.data.images import EXTENSIONS, read_image
from gcnet.errors import GcnetError, GcnetTypeError, ImageError
from gcnet.models.preprocessing import default_preprocessing
from gcnet.surgery import record
from gcnet.surgery.frames import is_detector
from gcnet.surgery.probe import CONVS

BATCH = 8
Transform = Callable[[Any], Any]


class Batch(NamedTuple):
    """Images (B, C, *spatial), for a detector a list of (C, H, W); labels (B,) or None; a name for each image."""

    images: Any
    labels: Tensor | None
    names: list[str]


def batches(model: nn.Module, images: Any, transform: Transform | None, unreadable: dict[str, str]) -> Iterator[Batch]:
    """The images in the order given, on the model's device and in its dtype; files that cannot be read are noted.

    Raises:
        TypeError: images is nothing of what is allowed.
        ValueError: a shape or dtype that cannot be a batch; files, and nothing says how they become the model's input.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    lists = is_detector(model)
    count = 0
    for found, labels, names in _groups(model, lists, images, transform, unreadable):
        names = names or [str(count + index) for index in range(len(found))]
        count += len(names)
        if lists:
            yield Batch([t.to(like) for t in found], labels, names)
            continue
        for chosen in (slice(n, n + BATCH) for n in range(0, len(names), BATCH)):
            yield Batch(found[chosen].to(like), None if labels is None else labels[chosen], names[chosen])


def _groups(
    model: nn.Module, lists: bool, images: Any, transform: Transform | None, unreadable: dict[str, str]
) -> Iterator[Batch]:
    """Batches of any size; tensors have no names yet."""
    if isinstance(images, str | Path | Image.Image | Tensor):
        images = [images]
    if not isinstance(images, Iterable) or isinstance(images, dict):
        raise GcnetTypeError(
            f"images is a {type(images).__name__}; expected a tensor (B, C, *spatial), an iterable of such tensors "
            "(or of tuples of images and labels), or paths of image files and folders"
        )
    waiting: list[tuple[str, Tensor]] = []
    for item in images:
        if isinstance(item, str | Path | Image.Image):
            for name, image in _read(item, unreadable):
                if transform is None:
                    transform = _default_transform(model, lists)
                tensor = transform(image)
                if waiting and (len(waiting) == BATCH or waiting[0][1].shape != tensor.shape):
                    yield _stacked(waiting)
                    waiting = []
                waiting.append((name, tensor))
            continue
        labels = None
        if isinstance(item, tuple | list) and item and isinstance(item[0], Tensor | list | tuple):
            labels = next((t for t in item[1:2] if isinstance(t, Tensor) and _is_labels(t, len(item[0]))), None)
            item = item[0]
        if not isinstance(item, Tensor | list | tuple):
            raise GcnetTypeError(f"images holds a {type(item).__name__}; expected tensors (B, C, *spatial) or paths")
        if item.numel() if isinstance(item, Tensor) else len(item):
            yield Batch(_checked(model, lists, item if transform is None else transform(item)), labels, [])
    if waiting:
        yield _stacked(waiting)


def _is_labels(t: Tensor, count: int) -> bool:
    return t.shape == (count,) and t.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)


def _stacked(waiting: Sequence[tuple[str, Tensor]]) -> Batch:
    return Batch(torch.stack([tensor for _, tensor in waiting]), None, [name for name, _ in waiting])


def _read(item: Any, unreadable: dict[str, str]) -> Iterator[tuple[str, Image.Image]]:
    if isinstance(item, Image.Image):
        yield getattr(item, "filename", "") or "image", item.convert("RGB")
        return
    path = Path(item)
    inside = (file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
    for file in sorted(inside) if path.is_dir() else [path]:
        try:
            yield str(file), read_image(file)
        except ImageError as error:
            unreadable[str(file)] = error.reason


def _default_transform(model: nn.Module, lists: bool) -> Transform:
    if lists:
        from torchvision.transforms.functional import pil_to_tensor  # here, since torchvision takes seconds to import

        return lambda image: pil_to_tensor(image).float() / 255
    preprocessing = record.preprocessing(model)
    if preprocessing is None and getattr(model, "pretrained_cfg", None):
        preprocessing = default_preprocessing("timm/model", model)
    if preprocessing is None:
        raise GcnetError(
            "transform=None, and this model does not say how a photograph becomes its input; give transform, a "
            "function from a PIL image to a tensor (C, H, W), such as the transforms() of torchvision's weights"
        )
    return eval_transform(preprocessing)


def _checked(model: nn.Module, lists: bool, images: Any) -> Any:
    if not isinstance(images, Tensor):
        wrong = next((t for t in images if not isinstance(t, Tensor) or t.ndim != 3), None)
        if wrong is not None or not lists:
            raise GcnetTypeError("images holds a list; only a detector takes lists, of tensors (C, H, W) each")
        return images
    if not images.is_floating_point():
        raise GcnetError(f"images has dtype {images.dtype}; give floating-point tensors as the model takes them")
    dims = next((module.weight.ndim - 2 for module in model.modules() if isinstance(module, CONVS)), None)
    if images.ndim == 3 and dims == 2:
        return images[None]
    if images.ndim < 3:
        raise GcnetError(f"images has shape {tuple(images.shape)}; expected (B, C, *spatial)")
    return images
