"""`scenes`: which cells of a made-up scene are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gcnet.errors import SettingsError
from gcnet.tasks.parts import TaskSettings
from gcnet.tasks.spec import TaskSpec, built, later

if TYPE_CHECKING:
    from torch import nn

    from gcnet.data.source import Source


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


def _metrics(source: Source, split: str) -> Any:
    from gcnet.scenes.task import SceneMetrics

    return SceneMetrics()


SPEC = TaskSpec(
    name="scenes",
    metric="balanced_accuracy",
    settings=TaskSettings,
    idle=("deform", "detector_options"),
    builds=lambda name: name == "scenes",
    usual_classes=6,
    recognise=_recognise,
    read=_read,
    build=_build,
    open=_open,
    module=later("gcnet.scenes.task:SceneTask"),
    metrics=_metrics,
    spot={"at": "spots.1"},
)
