"""What the recipes need for detectors: model and data of a run, figures on a part of the data."""

from __future__ import annotations

import sys
from typing import Any

import torch
from rich.progress import track
from torch import nn

from gcnet.data.detection.layouts import load_detection
from gcnet.data.source import Source, open_objects
from gcnet.errors import SettingsError
from gcnet.models import create_model
from gcnet.models.detection import is_detector
from gcnet.surgery import record
from gcnet.tasks.detection.module import DetectMetrics, task_of
from gcnet.tasks.run_data import eval_loader
from gcnet.tasks.settings import Settings

SHORT_SIDE = 800
DETECTION = ("detect", "instances")


def prepare_detector(settings: Settings, places: dict[str, Any]) -> tuple[nn.Module, Source]:
    """The detector as it is before the first step, and the data, of a run; `places` are the options of `insert`."""
    masks = settings.task == "instances"
    if not is_detector(settings.model.name):
        raise SettingsError(
            f"model={settings.model.name!r} is no detector; allowed are names such as 'maskrcnn_resnet50_fpn'"
        )
    data = load_detection(settings.data.path, masks=masks, strict=settings.own.strict)
    if not data.train:
        raise SettingsError(f"data={settings.data.path!r} holds no training images")
    size, max_size = sizes_of(settings)
    scaled = {"min_size", "max_size"} & set(settings.model.options)
    if scaled:
        raise SettingsError(f"detector_options: {', '.join(sorted(scaled))} come from image_size and scales; set those")
    deform = {"deform": settings.model.deform} if settings.model.deform is not None else {}
    model = create_model(
        settings.model.name,
        num_classes=len(data.classes),
        weights=settings.model.weights,
        block=settings.block.name,
        stages=settings.block.stages,
        **deform,
        **places,
        **settings.model.options,
        min_size=size,
        max_size=max_size,
    )
    if masks and task_of(model) != "instances":
        raise SettingsError(f"model={settings.model.name!r} has no masks; use task='detect', or a maskrcnn")
    if not masks and task_of(model) == "instances":
        raise SettingsError(f"model={settings.model.name!r} is trained on masks; use task='instances', or a fasterrcnn")
    record.set_classes(model, list(data.classes))
    source = open_objects(
        data,
        masks=masks,
        sizes=settings.own.scales or (size,),
        max_size=max(max_size, *(settings.own.scales or (0,))),
        photometric=settings.own.photometric,
        seed=settings.run.seed,
    )
    return model, source


def sizes_of(settings: Settings) -> tuple[int, int]:
    """Short side, and the most the long side may have: 800 and 1333, or in this proportion."""
    size = settings.data.image_size or SHORT_SIDE
    return size, size * 5 // 3


def open_for(model: nn.Module, data: str, *, strict: bool = False) -> Source:
    """Data to evaluate a detector on, with the classes it was trained for."""
    masks = task_of(model) == "instances"
    found = load_detection(data, masks=masks, classes=record.classes(model), strict=strict)
    return open_objects(found, masks=masks)


@torch.inference_mode()
def measure_detector(
    model: nn.Module, source: Source, split: str, *, batch_size: int, workers: int = 0, progress: bool = False
) -> dict[str, Any]:
    """COCO's figures of boxes and, if the detector has them, masks; also `per_class`, `images`, `skipped`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    metrics = DetectMetrics(source.truth[split], masks=task_of(model) == "instances")
    skipped: dict[str, str] = {}
    loader: Any = eval_loader(source, split, batch_size=batch_size, workers=workers)
    if progress and sys.stdout.isatty():
        loader = track(loader, f"evaluating on {split}", transient=True)
    for batch in loader:
        skipped |= {str(source.names[split][index]): reason for index, reason in batch.errors}
        if batch.images:
            metrics.update(model([image.to(device) for image in batch.images]), batch)
    if not metrics.found:
        raise SettingsError(f"none of the {len(skipped)} images in {split} can be read")
    return {**metrics.compute(), "skipped": skipped, "images": len(metrics.found)}
