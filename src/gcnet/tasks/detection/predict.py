"""The objects in photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from gcnet.data.images import read_image
from gcnet.errors import ImageError
from gcnet.surgery import record
from gcnet.surgery.frames import framed
from gcnet.tasks.detection.metrics import as_results
from gcnet.tasks.spec import Prediction


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
