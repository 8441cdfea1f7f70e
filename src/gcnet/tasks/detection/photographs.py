"""Photographs and the objects in them: how they are read, and what a detector says of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from gcnet.data.detection.annotations import DetectionData
from gcnet.data.detection.layouts import load_detection
from gcnet.data.images import read_image
from gcnet.data.source import Source, open_objects
from gcnet.errors import ImageError, SettingsError
from gcnet.models.catalogue import is_detector
from gcnet.surgery import record
from gcnet.surgery.frames import frame_of, framed
from gcnet.tasks.detection.metrics import as_results
from gcnet.tasks.settings import Settings
from gcnet.tasks.spec import Prediction, built

SHORT_SIDE = 800


def recognise(model: nn.Module, *, masks: bool) -> bool:
    return frame_of(model) is not None and _has_masks(model) == masks


def read(
    path: str,
    *,
    masks: bool,
    splits: Any,
    settings: Any = None,
    model: nn.Module | None = None,
    strict: bool = False,
) -> DetectionData:
    if model is not None:
        return load_detection(path, masks=masks, classes=record.classes(model), strict=strict)
    data = load_detection(path, masks=masks, strict=settings.own.strict)
    if not data.train:
        raise SettingsError(f"data={path!r} holds no training images")
    return data


def build(settings: Settings, classes: Sequence[str], *, masks: bool) -> nn.Module:
    name = settings.model.name
    if not is_detector(name):
        raise SettingsError(f"model={name!r} is no detector; allowed are names such as 'maskrcnn_resnet50_fpn'")
    size, max_size = sizes_of(settings)
    scaled = {"min_size", "max_size"} & set(settings.model.options)
    if scaled:
        raise SettingsError(f"detector_options: {', '.join(sorted(scaled))} come from image_size and scales; set those")
    options = {**settings.model.options, "min_size": size, "max_size": max_size}
    model = built(settings, classes, deform=settings.model.deform, **options)
    if masks and not _has_masks(model):
        raise SettingsError(f"model={name!r} has no masks; use task='detect', or a maskrcnn")
    if not masks and _has_masks(model):
        raise SettingsError(f"model={name!r} is trained on masks; use task='instances', or a fasterrcnn")
    return model


def datasets(data: DetectionData, model: nn.Module, settings: Settings | None = None, *, masks: bool) -> Source:
    if settings is None:
        return open_objects(data, masks=masks)
    size, max_size = sizes_of(settings)
    own: Any = settings.own
    scales = own.scales or (size,)
    return open_objects(
        data,
        masks=masks,
        sizes=scales,
        max_size=max(max_size, *scales),
        photometric=own.photometric,
        seed=settings.run.seed,
    )


def compared(model: nn.Module, settings: Settings) -> tuple[nn.Module, Tensor]:
    """Backbone and pyramid: the work of what comes behind depends on what is in the images."""
    trunk: Any = model.backbone
    return trunk, torch.zeros(1, 3, *(-(-side // 32) * 32 for side in sizes_of(settings)))


def sizes_of(settings: Settings) -> tuple[int, int]:
    """Short side, and the most the long side may have: 800 and 1333, or in this proportion."""
    size = settings.data.image_size or SHORT_SIDE
    return size, size * 5 // 3


def _has_masks(model: nn.Module) -> bool:
    heads: Any = getattr(model, "roi_heads", None)
    return heads is not None and heads.has_mask()


def predict(model: nn.Module, paths: Sequence[Path], threshold: float) -> list[Prediction]:
    """The objects in every image whose score is at least `threshold`, best first; each image by itself."""
    return [_objects(model, path, threshold) for path in paths]


@torch.inference_mode()
def _objects(model: nn.Module, path: Path, threshold: float) -> Prediction:
    entry: dict[str, Any] = {"path": str(path), "width": None, "height": None, "objects": [], "error": None}
    try:
        pixels = pil_to_tensor(read_image(path))
    except ImageError as error:
        return Prediction(entry | {"error": error.reason})
    entry["height"], entry["width"] = pixels.shape[-2:]
    image = pixels.to(next(model.parameters()).device) / 255
    found = model([image])[0]
    kept = {key: value[found["scores"] >= threshold].cpu() for key, value in found.items()}
    entry["objects"] = [_entry(result, record.classes(model)) for result in as_results(0, kept)]
    return Prediction(entry, pixels, partial(_share, model, image))


def _entry(result: dict[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
    """An object as it is given out, from one in COCO's result format."""
    x, y, width, height = result["bbox"]
    label = result["category_id"] - 1
    name = classes[label] if classes is not None else str(label)
    entry = {"class": name, "score": result["score"], "box": [x, y, x + width, y + height]}
    return entry | ({"mask": result["segmentation"]} if "segmentation" in result else {})


@torch.inference_mode()
def _share(model: nn.Module, image: Tensor) -> tuple[float, float]:
    """The network saw the image resized, and padded at the right and bottom."""
    batch = framed(model, [image])
    (height, width), (full_height, full_width) = batch.image_sizes[0], batch.tensors.shape[-2:]
    return height / full_height, width / full_width
