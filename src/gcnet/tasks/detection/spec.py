"""`detect` and `instances`: the boxes of objects, and their masks, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcnet.errors import SettingsError
from gcnet.tasks.detection.recipe import DEFAULTS, derived
from gcnet.tasks.parts import OBJECTS, TaskSettings, setting
from gcnet.tasks.spec import TaskSpec, later

PHOTOGRAPHS = "gcnet.tasks.detection.photographs"


@dataclass(frozen=True, kw_only=True)
class DetectSettings(TaskSettings):
    """What only detectors have.

    Args:
        scales: short sides of which a training image gets one at random; None for `image_size` alone.
        photometric: change colours at random.
        strict: refuse faulty annotations instead of leaving them out.
    """

    scales: tuple[int, ...] | None = setting(None, "Short sides drawn from in training: 640,720,800.", panel=OBJECTS)
    photometric: bool = setting(False, "Change colours at random.", panel=OBJECTS)
    strict: bool = setting(False, "Refuse faulty annotations.", panel=OBJECTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scales is not None and not all(type(size) is int and size >= 8 for size in self.scales or ("none",)):
            raise SettingsError(f"scales={self.scales!r}: allowed are whole numbers of pixels from 8, or None")


def counted(entry: Mapping[str, Any]) -> dict[str, str]:
    """How many objects of each class were found."""
    counts = Counter(one["class"] for one in entry["objects"])
    return {"objects": ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"}


def _spec(name: str, metric: str, model: str, *, masks: bool) -> TaskSpec:
    return TaskSpec(
        name=name,
        metric=metric,
        settings=DetectSettings,
        idle=("cache",),
        defaults=DEFAULTS | {"model": model},
        derive=derived,
        shorthands=("recipe",),
        recognise=later(f"{PHOTOGRAPHS}:recognise", masks=masks),
        read=later(f"{PHOTOGRAPHS}:read", masks=masks),
        build=later(f"{PHOTOGRAPHS}:build", masks=masks),
        open=later(f"{PHOTOGRAPHS}:datasets", masks=masks),
        module=later("gcnet.tasks.detection.module:DetectTask", masks=masks),
        metrics=later("gcnet.tasks.detection.metrics:measured", masks=masks),
        predict=later(f"{PHOTOGRAPHS}:predict"),
        at_once=1,
        shown=counted,
        draw=later("gcnet.tasks.detection.draw:draw"),
        compared=later(f"{PHOTOGRAPHS}:compared"),
        counted="backbone and pyramid on one image, as are the times",
        cost=later("gcnet.tasks.detection.cost:fixed_pass"),
    )


DETECT = _spec("detect", "box_AP", "fasterrcnn_resnet50_fpn", masks=False)
INSTANCES = _spec("instances", "mask_AP", "maskrcnn_resnet50_fpn", masks=True)
