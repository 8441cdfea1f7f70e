"""`detect` and `instances`: the boxes of objects, and their masks, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gcnet.errors import SettingsError
from gcnet.tasks.detection.recipe import DEFAULTS, derived
from gcnet.tasks.parts import OBJECTS, DataSettings, ModelSettings, TaskSettings, idle, setting
from gcnet.tasks.spec import Counted, Prediction, TaskSpec, built

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gcnet.data.detection.annotations import DetectionData
    from gcnet.data.source import Source

SHORT_SIDE = 800


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


def sizes_of(settings: Any) -> tuple[int, int]:
    """Short side, and the most the long side may have: 800 and 1333, or in this proportion."""
    size = settings.data.image_size or SHORT_SIDE
    return size, size * 5 // 3


def _recognise(model: nn.Module, masks: bool) -> bool:
    from gcnet.surgery.frames import is_detector

    return is_detector(model) and _has_masks(model) == masks


def _has_masks(model: nn.Module) -> bool:
    heads: Any = getattr(model, "roi_heads", None)
    return heads is not None and heads.has_mask()


def _read(
    path: str,
    masks: bool,
    *,
    splits: Any,
    settings: Any = None,
    model: nn.Module | None = None,
    strict: bool = False,
) -> DetectionData:
    from gcnet.data.detection.layouts import load_detection
    from gcnet.surgery import record

    if model is not None:
        return load_detection(path, masks=masks, classes=record.classes(model), strict=strict)
    data = load_detection(path, masks=masks, strict=settings.own.strict)
    if not data.train:
        raise SettingsError(f"data={path!r} holds no training images")
    return data


def _build(settings: Any, classes: Sequence[str], masks: bool) -> nn.Module:
    from gcnet.models.detection import is_detector

    name = settings.model.name
    if not is_detector(name):
        raise SettingsError(f"model={name!r} is no detector; allowed are names such as 'maskrcnn_resnet50_fpn'")
    size, max_size = sizes_of(settings)
    scaled = {"min_size", "max_size"} & set(settings.model.options)
    if scaled:
        raise SettingsError(f"detector_options: {', '.join(sorted(scaled))} come from image_size and scales; set those")
    options = {**settings.model.options, "min_size": size, "max_size": max_size}
    model = built(settings, classes, deform=settings.model.deform, **options)
    if masks and not _has_masks(model):
        raise SettingsError(f"model={name!r} has no masks; use task='detect', or a maskrcnn")
    if not masks and _has_masks(model):
        raise SettingsError(f"model={name!r} is trained on masks; use task='instances', or a fasterrcnn")
    return model


def _open(data: DetectionData, model: nn.Module, settings: Any = None, *, masks: bool) -> Source:
    from gcnet.data.source import open_objects

    if settings is None:
        return open_objects(data, masks=masks)
    size, max_size = sizes_of(settings)
    scales = settings.own.scales or (size,)
    return open_objects(
        data,
        masks=masks,
        sizes=scales,
        max_size=max(max_size, *scales),
        photometric=settings.own.photometric,
        seed=settings.run.seed,
    )


def _module(model: nn.Module, setup: Any, source: Source, settings: Any, masks: bool) -> Any:
    from gcnet.tasks.detection.module import DetectTask

    truth = source.truth.get("val", {"images": [], "annotations": [], "categories": []})
    return DetectTask(model, setup, truth=truth, masks=masks)


def _metrics(source: Source, split: str, masks: bool) -> Any:
    from gcnet.tasks.detection.metrics import DetectMetrics

    return DetectMetrics(source.truth[split], masks=masks)


def _predict(model: nn.Module, paths: Sequence[Any], threshold: float) -> list[Prediction]:
    from gcnet.tasks.detection.predict import predict

    return predict(model, paths, threshold)


def _draw(image: Tensor, entry: Mapping[str, Any]) -> Tensor:
    from gcnet.tasks.detection.draw import draw

    return draw(image, entry)


def _compared(model: nn.Module, settings: Any) -> tuple[nn.Module, Tensor]:
    """Backbone and pyramid: the work of what comes behind depends on what is in the images."""
    import torch

    trunk: Any = model.backbone
    return trunk, torch.zeros(1, 3, *(-(-side // 32) * 32 for side in sizes_of(settings)))


def _cost(model: nn.Module, images: Tensor) -> Counted:
    from gcnet.tasks.detection.cost import DetectorPass, detector_part

    fixed = DetectorPass(model, images)
    return Counted(fixed, detector_part, fixed.count)


def _spec(name: str, metric: str, model: str, *, masks: bool) -> TaskSpec:
    return TaskSpec(
        name=name,
        metric=metric,
        settings=DetectSettings,
        defaults=DEFAULTS | {"model": model},
        derive=derived,
        shorthands=("recipe",),
        recognise=partial(_recognise, masks=masks),
        read=partial(_read, masks=masks),
        build=partial(_build, masks=masks),
        open=partial(_open, masks=masks),
        module=partial(_module, masks=masks),
        metrics=partial(_metrics, masks=masks),
        predict=_predict,
        at_once=1,
        draw=_draw,
        compared=_compared,
        counted="backbone and pyramid on one image, as are the times",
        cost=_cost,
    )


DETECT = _spec("detect", "box_AP", "fasterrcnn_resnet50_fpn", masks=False)
INSTANCES = _spec("instances", "mask_AP", "maskrcnn_resnet50_fpn", masks=True)
