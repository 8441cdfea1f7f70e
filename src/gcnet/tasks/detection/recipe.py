"""The published training of detectors: 12 or 24 epochs of SGD, its learning rate scaled to the images of a step."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from gcnet.errors import SettingsError
from gcnet.tasks.settings import Settings

RECIPES = {"1x": 12, "2x": 24}  # epochs
MODELS = {"detect": "fasterrcnn_resnet50_fpn", "segment": "maskrcnn_resnet50_fpn"}
LR, IMAGES = 0.02, 16  # of the paper: two images on each of eight GPUs
DEFAULTS: dict[str, Any] = {
    "batch_size": 2,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "schedule": "steps",
    "warmup_steps": 500,
    "clip_norm": 35.0,
    "label_smoothing": 0.0,
}


class SettingsWarning(UserWarning):
    """A setting that was derived from others."""


def detection_settings(
    data: str, *, task: Literal["detect", "segment"] = "segment", recipe: Literal["1x", "2x"] = "1x", **changes: Any
) -> Settings:
    """The settings of GCNet's detectors (arXiv 1904.11492, section 4.1), with changes.

    SGD with momentum .9, weight decay 1e-4, 500 steps of warm-up, lr divided by 10 after 8/12 and 11/12 of the epochs,
    gradients clipped to 35. lr is .02 for 16 images in a step and proportional to them otherwise, unless it is given.

    Args:
        data: see `gcnet.data.load_detection`.
        task: boxes, or boxes and masks.
        recipe: 12 or 24 epochs.
        **changes: other fields of `Settings`.

    Warns:
        SettingsWarning: lr was scaled.
    """
    if task not in MODELS:
        raise SettingsError(f"task={task!r}: allowed are 'detect', 'segment'")
    if recipe not in RECIPES:
        raise SettingsError(f"recipe={recipe!r}: allowed are '1x', '2x'")
    values = {"model": MODELS[task], "epochs": RECIPES[recipe], **DEFAULTS, **changes}
    if "lr" not in changes:
        sizes = [values.get(name, 1) for name in ("batch_size", "accumulate", "devices", "nodes")]
        if not all(type(size) is int and size >= 1 for size in sizes):
            return Settings(data=data, task=task, **values)  # which says what is wrong
        images = sizes[0] * sizes[1] * sizes[2] * sizes[3]
        values["lr"] = LR * images / IMAGES
        if images != IMAGES:
            warnings.warn(
                f"lr: {LR:g} is for {IMAGES} images in a step; for {images} it is scaled to {values['lr']:g} "
                "(give lr to choose it)",
                SettingsWarning,
                stacklevel=2,
            )
    return Settings(data=data, task=task, **values)
