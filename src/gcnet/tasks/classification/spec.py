"""`classify`: the class of an image."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.errors import SettingsError
from gcnet.tasks.parts import OPTIMISER, DataSettings, ModelSettings, TaskSettings, idle, setting
from gcnet.tasks.spec import TaskSpec


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

    def check(self, task: str, data: DataSettings, model: ModelSettings) -> None:
        refuse_options(task, model)


def refuse_options(task: str, model: ModelSettings) -> None:
    """Only detectors take these."""
    if model.deform is not None:
        raise idle("deform", model.deform, task)
    if model.options:
        raise idle("detector_options", model.options, task)


SPEC = TaskSpec(name="classify", metric="accuracy", settings=ClassifySettings)
