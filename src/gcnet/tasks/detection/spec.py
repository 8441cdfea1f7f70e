"""`detect` and `instances`: the boxes of objects, and their masks, too."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.errors import SettingsError
from gcnet.tasks.detection.recipe import DEFAULTS, derived
from gcnet.tasks.parts import OBJECTS, DataSettings, ModelSettings, TaskSettings, idle, setting
from gcnet.tasks.spec import TaskSpec


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

    def check(self, task: str, data: DataSettings, model: ModelSettings) -> None:
        if data.cache:
            raise idle("cache", data.cache, task)


DETECT = TaskSpec(
    name="detect",
    metric="box_AP",
    settings=DetectSettings,
    defaults=DEFAULTS | {"model": "fasterrcnn_resnet50_fpn"},
    derive=derived,
    shorthands=("recipe",),
)
INSTANCES = TaskSpec(
    name="instances",
    metric="mask_AP",
    settings=DetectSettings,
    defaults=DEFAULTS | {"model": "maskrcnn_resnet50_fpn"},
    derive=derived,
    shorthands=("recipe",),
)
