"""`evaluate`: the figures of a trained model on one part of its data, or on other data."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import nn

from gcnet.checkpoints import load_checkpoint
from gcnet.data.classification.folders import load_classification
from gcnet.data.source import Source, open_images, open_scenes
from gcnet.errors import RunError, SettingsError
from gcnet.files.atomic import write_text
from gcnet.recipes.inputs import device_of, weights_of
from gcnet.scenes.task import SceneMetrics
from gcnet.surgery import record
from gcnet.tasks import TASKS
from gcnet.tasks.classification.module import ClassifyMetrics
from gcnet.tasks.detection.module import task_of
from gcnet.tasks.detection.prepare import measure_detector, open_for
from gcnet.tasks.run_data import eval_loader
from gcnet.tasks.settings import Settings, from_json
from gcnet.tasks.step import Metrics


def evaluate(
    run_or_weights: str | Path,
    *,
    data: str | None = None,
    split: str = "test",
    settings: Settings | None = None,
    strict: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Figures of the best model of a run, or of a file of `gcnet.save_checkpoint`.

    Args:
        run_or_weights: the folder of a run, or the safetensors file.
        data: a folder or CSV file, or the name of scenes; None for the data the run was trained with.
        split: "train", "val" or "test". "train" is read without augmentation.
        settings: batch size, workers and task, where there is no run; None for the defaults.
        strict: refuse faulty annotations of objects; else they are left out, with warnings.
        progress: show a progress bar, if the output is a terminal.

    Returns:
        For detectors COCO's figures (`box_AP`, `box_AP50`, ... `mask_AP` ...; None where there is nothing to find),
        per_class, images, skipped; for classification accuracy, top5, loss, per_class (with the class's name),
        confusion, images, skipped; for scenes balanced_accuracy, item_accuracy, loss, images. A run's folder also gets
        them as `evaluation.json`.

    Raises:
        RunError, CheckpointError, DataError: no model there, no such split, classes that the model does not know.
    """
    path = Path(run_or_weights)
    weights = weights_of(path)
    if path.is_dir() and settings is None:
        settings = from_json(path / "settings.json")
    data = data if data is not None else settings.data.path if settings is not None else None
    if data is None:
        raise SettingsError(f"data=None: {path} is a file of weights, which does not say what data to use; give data")
    model = load_checkpoint(weights).model
    detects = task_of(model)
    if detects is not None:
        result = _evaluate_detector(model, data, split, settings, strict=strict, progress=progress)
        result = {"weights": str(weights), **result}
        if path.is_dir():
            write_text(path / "evaluation.json", json.dumps(result, indent=2) + "\n")
        return result
    task = "scenes" if (record.architecture(model) or {}).get("name") == "scenes" else "classify"
    settings = replace(settings, data=data) if settings is not None else Settings(data=data, task=task)
    source = _open(task, data, split, model)
    if split not in source.datasets:
        raise RunError(f"split={split!r}: {data} has only {', '.join(source.datasets)}")
    figures = measure(model, source, split, task=task, settings=settings, progress=progress)
    result = {"weights": str(weights), "data": data, "split": split, **figures}
    if path.is_dir():
        write_text(path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    return result


def _evaluate_detector(
    model: nn.Module, data: str, split: str, settings: Settings | None, *, strict: bool, progress: bool
) -> dict[str, Any]:
    if split not in ("train", "val", "test"):
        raise SettingsError(f"split={split!r}: allowed are 'train', 'val', 'test'")
    source = open_for(model, data, strict=strict)
    if split not in source.datasets:
        raise RunError(f"split={split!r}: {data} has only {', '.join(source.datasets)}")
    batch_size, workers = (settings.data.batch_size, settings.data.workers) if settings is not None else (1, 0)
    figures = measure_detector(model, source, split, batch_size=batch_size, workers=workers, progress=progress)
    return {"data": data, "split": split, **figures}


@torch.inference_mode()
def measure(
    model: nn.Module, source: Source, split: str, *, task: str, settings: Settings, progress: bool = False
) -> dict[str, Any]:
    """The task's figures of a model on one part of the data."""
    device = device_of()
    layout = torch.channels_last if settings.run.channels_last else torch.contiguous_format
    model = model.eval().to(device, memory_format=layout)  # type: ignore[call-overload]
    metrics: Metrics = (SceneMetrics() if task == "scenes" else ClassifyMetrics(len(source.classes))).to(device)
    skipped: dict[str, str] = {}
    images = 0
    loader = eval_loader(source, split, batch_size=settings.data.batch_size, workers=settings.data.workers)
    for batch in _shown(loader, f"evaluating on {split}", progress):
        if task == "classify":
            skipped |= {str(source.names[split][index]): reason for index, reason in batch.errors}
            moved = batch._replace(images=batch.images.to(device), labels=batch.labels.to(device))
        else:
            moved = [tensor.to(device) for tensor in batch]
        if len(moved[0]) == 0:
            continue
        images += len(moved[0])
        outputs = model(moved[0].contiguous(memory_format=layout))
        metrics.update(outputs, moved, TASKS[task].module.plain_loss(outputs, moved))
    figures = metrics.compute()
    if not figures:
        raise RunError(f"none of the {len(skipped)} images in {split} of {settings.data.path} can be read")
    if task == "classify":
        figures["per_class"] = [
            {"class": name, **row} for name, row in zip(source.classes, figures["per_class"], strict=True)
        ]
        figures["skipped"] = skipped
    return {**figures, "images": images}


def _open(task: str, data: str, split: str, model: nn.Module) -> Source:
    if split not in ("train", "val", "test"):
        raise SettingsError(f"split={split!r}: allowed are 'train', 'val', 'test'")
    if task == "scenes":
        return open_scenes(data, (split,))
    with _only_our_split():
        photographs = load_classification(data, classes=record.classes(model))
    return open_images(photographs, record.preprocessing(model), augment=False)


@contextmanager
def _only_our_split() -> Iterator[None]:
    """Remarks on how the data divide were made when they were trained with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(no images in|too few images for a validation part).*")
        yield


def _shown(batches: Iterable[Any], what: str, progress: bool) -> Iterable[Any]:
    return track(batches, what, transient=True) if progress and sys.stdout.isatty() else batches
