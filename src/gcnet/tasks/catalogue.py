"""The tasks: a literal table from the name in the settings to the module that trains it."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.scenes.task import SceneMetrics, SceneTask
from gcnet.tasks.classification.module import ClassifyMetrics, ClassifyTask
from gcnet.tasks.detection.module import DetectMetrics, DetectTask
from gcnet.tasks.step import Metrics, Task


@dataclass(frozen=True)
class Entry:
    """A task's module, its metrics, and the name of the metric that selects the best epoch and heads every table."""

    module: type[Task]
    metrics: type[Metrics]
    metric: str


TASKS: dict[str, Entry] = {
    "classify": Entry(ClassifyTask, ClassifyMetrics, "accuracy"),
    "detect": Entry(DetectTask, DetectMetrics, "box_AP"),
    "instances": Entry(DetectTask, DetectMetrics, "mask_AP"),
    "scenes": Entry(SceneTask, SceneMetrics, "balanced_accuracy"),
}
