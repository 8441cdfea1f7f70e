"""The published training of detectors: 12 or 24 epochs of SGD, its learning rate scaled to the images of a step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from gcnet.errors import SettingsError, choice
from gcnet.tasks.settings import Settings

RECIPES = {"1x": 12, "2x": 24}  # epochs
LR, IMAGES = 0.02, 16  # of the paper: two images on each of eight GPUs
DEFAULTS: dict[str, Any] = {
    "batch_size": 2,
    "optimizer": "sgd",
    "weight_decay": 1e-4,
    "schedule": "steps",
    "warmup_steps": 500,
    "clip_norm": 35.0,
}


class SettingsWarning(UserWarning):
    """A setting that was derived from others."""


def detection_settings(
    data: str, *, task: Literal["detect", "instances"] = "instances", recipe: Literal["1x", "2x"] = "1x", **changes: Any
) -> Settings:
    """The settings of GCNet's detectors (arXiv 1904.11492, section 4.1), with changes.

    SGD with momentum .9, weight decay 1e-4, 500 steps of warm-up, lr divided by 10 after 8/12 and 11/12 of the epochs,
    gradients clipped to 35. lr is .02 for 16 images in a step and proportional to them otherwise, unless it is given.

    Args:
        data: see `gcnet.data.load_detection`.
        task: boxes, or boxes and masks.
        recipe: 12 or 24 epochs.
        **changes: other flat names of `Settings`.

    Warns:
        SettingsWarning: lr was scaled.
    """
    return Settings(data=data, task=task, recipe=recipe, **changes)


def derived(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat names, with the epochs of `recipe` and the lr of the images in a step, unless those are given.

    Warns:
        SettingsWarning: lr was scaled.
    """
    values = {**given}
    recipe = choice("recipe", values.pop("recipe", "1x"), tuple(RECIPES), kind=SettingsError)
    if "optimisation" in given:
        return values
    values.setdefault("epochs", RECIPES[recipe])
    sizes = [{**DEFAULTS, **values}.get(name, 1) for name in ("batch_size", "accumulate", "devices", "nodes")]
    if "lr" in values or not all(type(size) is int and size > 0 for size in sizes):
        return values  # `Settings` says what is wrong with them
    images = math.prod(sizes)
    values["lr"] = LR * images / IMAGES
    if images != IMAGES:
        warnings.warn(
            f"lr: {LR:g} is for {IMAGES} images in a step; for {images} it is scaled to {values['lr']:g} "
            "(give lr to choose it)",
            SettingsWarning,
            stacklevel=4,
        )
    return values
