"""`classify`: the class of an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcnet.errors import SettingsError
from gcnet.tasks.parts import OPTIMISER, DataSettings, ModelSettings, TaskSettings, idle, setting
from gcnet.tasks.spec import Prediction, TaskSpec, built

if TYPE_CHECKING:
    from torch import nn

    from gcnet.data.source import Source


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


def _read(path: str, *, splits: Any, settings: Any = None, model: nn.Module | None = None, strict: bool = False) -> Any:
    from gcnet.data.classification.folders import load_classification
    from gcnet.data.source import open_photographs
    from gcnet.surgery import record

    if model is None:
        return open_photographs(path)
    with warnings.catch_warnings():  # remarks on how the data divide were made when they were trained with
        warnings.filterwarnings("ignore", message=".*(no images in|too few images for a validation part).*")
        return load_classification(path, classes=record.classes(model))


def _build(settings: Any, classes: Sequence[str]) -> nn.Module:
    from gcnet.models.preprocessing import at_size
    from gcnet.surgery import record

    model = built(settings, classes)
    preprocessing = record.preprocessing(model)
    if preprocessing and settings.data.image_size:
        record.set_preprocessing(model, at_size(preprocessing, settings.data.image_size))
    return model


def _open(found: Any, model: nn.Module, settings: Any = None) -> Source:
    from gcnet.data.source import open_images
    from gcnet.surgery import record

    preprocessing = record.preprocessing(model)
    if settings is None:
        return open_images(found, preprocessing, augment=False)
    source = open_images(found, preprocessing, cache=settings.data.cache, seed=settings.run.seed)
    if settings.data.cache and settings.data.workers:
        source.fill_caches()
    return source


def _module(model: nn.Module, setup: Any, source: Source, settings: Any) -> Any:
    from gcnet.tasks.classification.module import ClassifyTask

    own = settings.own
    return ClassifyTask(
        model, setup, num_classes=len(source.classes), label_smoothing=own.label_smoothing, mixup=own.mixup
    )


def _metrics(source: Source, split: str) -> Any:
    from gcnet.tasks.classification.metrics import ClassifyMetrics

    return ClassifyMetrics(len(source.classes), source.classes)


def _predict(model: nn.Module, paths: Sequence[Any], threshold: float) -> list[Prediction]:
    from gcnet.tasks.classification.predict import predict

    return predict(model, paths, threshold)


SPEC = TaskSpec(
    name="classify",
    metric="accuracy",
    settings=ClassifySettings,
    recognise=lambda model: True,  # the last one that is asked
    read=_read,
    build=_build,
    open=_open,
    module=_module,
    metrics=_metrics,
    predict=_predict,
)
