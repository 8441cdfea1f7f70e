"""The classes of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.data.classification.transforms import eval_transform
from gcnet.data.images import read_image
from gcnet.errors import ImageError, SettingsError
from gcnet.surgery import record
from gcnet.tasks.spec import Prediction


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
