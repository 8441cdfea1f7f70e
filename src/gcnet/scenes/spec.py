"""`scenes`: which cells of a made-up scene are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcnet.errors import SettingsError
from gcnet.tasks.classification.spec import refuse_options
from gcnet.tasks.parts import DataSettings, ModelSettings, TaskSettings
from gcnet.tasks.spec import TaskSpec, built

if TYPE_CHECKING:
    from torch import nn

    from gcnet.data.source import Source


@dataclass(frozen=True, kw_only=True)
class SceneSettings(TaskSettings):
    """Scenes have no settings of their own."""

    def check(self, task: str, data: DataSettings, model: ModelSettings) -> None:
        refuse_options(task, model)


def _recognise(model: nn.Module) -> bool:
    from gcnet.scenes.net import SceneNet

    return isinstance(model, SceneNet)


def _read(path: str, *, splits: Sequence[str], settings: Any = None, model: Any = None, strict: bool = False) -> Source:
    from gcnet.scenes.source import open_scenes

    return open_scenes(path, splits)


def _build(settings: Any, classes: Sequence[str]) -> nn.Module:
    model = built(settings, classes)
    if not _recognise(model):
        raise SettingsError(f"model={settings.model.name!r} does not fit task='scenes': scenes go with scenes")
    return model


def _open(found: Source, model: nn.Module, settings: Any = None) -> Source:
    return found


def _module(model: nn.Module, setup: Any, source: Source, settings: Any) -> Any:
    from gcnet.scenes.task import SceneTask

    return SceneTask(model, setup)


def _metrics(source: Source, split: str) -> Any:
    from gcnet.scenes.task import SceneMetrics

    return SceneMetrics()


SPEC = TaskSpec(
    name="scenes",
    metric="balanced_accuracy",
    settings=SceneSettings,
    recognise=_recognise,
    read=_read,
    build=_build,
    open=_open,
    module=_module,
    metrics=_metrics,
    spot={"at": "spots.1"},
)
