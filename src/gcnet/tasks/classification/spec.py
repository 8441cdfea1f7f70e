"""`classify`: the class of an image."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.errors import SettingsError
from gcnet.tasks.parts import OPTIMISER, TaskSettings, setting
from gcnet.tasks.spec import TaskSpec, later


@dataclass(frozen=True, kw_only=True)
class ClassifySettings(TaskSettings):
    """What only classification has.

    Args:
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of mixup (arXiv 1710.09412).
    """

    label_smoothing: float = setting(0.1, "Share of the target spread over all classes.", panel=OPTIMISER)
    mixup: float = setting(0.0, "Alpha; 0: off.", panel=OPTIMISER, lowest=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"label_smoothing={self.label_smoothing!r}: allowed are numbers from 0 to below 1")


PHOTOGRAPHS = "gcnet.tasks.classification.photographs"

SPEC = TaskSpec(
    name="classify",
    metric="accuracy",
    settings=ClassifySettings,
    idle=("deform", "detector_options"),
    recognise=lambda model: True,
    read=later(f"{PHOTOGRAPHS}:read"),
    build=later(f"{PHOTOGRAPHS}:build"),
    open=later(f"{PHOTOGRAPHS}:datasets"),
    module=later("gcnet.tasks.classification.module:ClassifyTask"),
    metrics=later("gcnet.tasks.classification.metrics:measured"),
    predict=later(f"{PHOTOGRAPHS}:predict"),
)
