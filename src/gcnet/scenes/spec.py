"""`scenes`: which cells of a made-up scene are meant."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.tasks.classification.spec import refuse_options
from gcnet.tasks.parts import DataSettings, ModelSettings, TaskSettings
from gcnet.tasks.spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class SceneSettings(TaskSettings):
    """Scenes have no settings of their own."""

    def check(self, task: str, data: DataSettings, model: ModelSettings) -> None:
        refuse_options(task, model)


SPEC = TaskSpec(name="scenes", metric="balanced_accuracy", settings=SceneSettings)
