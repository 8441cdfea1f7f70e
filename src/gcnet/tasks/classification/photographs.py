"""Photographs and their classes: how they are read, and what a model says of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.data.classification.folders import ClassificationData, load_classification
from gcnet.data.classification.transforms import eval_transform
from gcnet.data.images import read_image
from gcnet.data.source import Source, open_images, open_photographs
from gcnet.errors import ImageError, SettingsError
from gcnet.models.preprocessing import at_size
from gcnet.surgery import record
from gcnet.tasks.settings import Settings
from gcnet.tasks.spec import Prediction, built


def read(
    path: str, *, splits: Any, settings: Any = None, model: nn.Module | None = None, strict: bool = False
) -> ClassificationData:
    if model is None:
        return open_photographs(path)
    with warnings.catch_warnings():  # remarks on how the data divide were made when they were trained with
        warnings.filterwarnings("ignore", message=".*(no images in|too few images for a validation part).*")
        return load_classification(path, classes=record.classes(model))


def build(settings: Settings, classes: Sequence[str]) -> nn.Module:
    model = built(settings, classes)
    preprocessing = record.preprocessing(model)
    if preprocessing and settings.data.image_size:
        record.set_preprocessing(model, at_size(preprocessing, settings.data.image_size))
    return model


def datasets(found: ClassificationData, model: nn.Module, settings: Settings | None = None) -> Source:
    preprocessing = record.preprocessing(model)
    if settings is None:
        return open_images(found, preprocessing, augment=False)
    source = open_images(found, preprocessing, cache=settings.data.cache, seed=settings.run.seed)
    if settings.data.cache and settings.data.workers:
        source.fill_caches()
    return source


@torch.inference_mode()
def predict(model: nn.Module, paths: Sequence[Path], threshold: float) -> list[Prediction]:
    """Up to five classes of each image with their scores, best first; all files in one pass of the model."""
    preprocessing = record.preprocessing(model)
    if preprocessing is None:
        raise SettingsError("weights are of a model that does not read photographs")
    transform = eval_transform(preprocessing)
    found = [_read(path, transform) for path in paths]
    seen = [one.seen for one in found if one.seen is not None]
    if seen:
        device = next(model.parameters()).device
        scores = model(torch.stack(seen).to(device)).float().softmax(1).cpu()
        names = record.classes(model) or [str(index) for index in range(scores.shape[1])]
        readable = (one.entry for one in found if one.seen is not None)
        for entry, row in zip(readable, scores, strict=True):
            best = row.topk(min(5, len(names)))
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            entry["top"] = [{"class": names[index], "score": value} for value, index in pairs]
            entry |= entry["top"][0]
    return found


def _read(path: Path, transform: Any) -> Prediction:
    entry: dict[str, Any] = {"path": str(path), "class": None, "score": None, "top": [], "error": None}
    try:
        return Prediction(entry, transform(read_image(path)))
    except ImageError as error:
        return Prediction(entry | {"error": error.reason})
