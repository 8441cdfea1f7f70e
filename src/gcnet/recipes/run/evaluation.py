"""`evaluate`: the figures of a trained model on one part of its data, or on other data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from gcnet.data.loading import eval_loader
from gcnet.data.source import Source
from gcnet.errors import RunError, SettingsError, choice
from gcnet.files.atomic import write_text
from gcnet.recipes.inputs import device_of, stored_model, weights_of
from gcnet.report.terminal import tracked
from gcnet.tasks.settings import Settings, from_json
from gcnet.tasks.table import spec_of


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
    model = stored_model(weights)
    choice("split", split, ("train", "val", "test"), kind=SettingsError)
    known = spec_of(model)
    source = known.open(known.read(data, splits=(split,), model=model, strict=strict), model)
    if split not in source.datasets:
        raise RunError(f"split={split!r}: {data} has only {', '.join(source.datasets)}")
    figures = measure(model, source, split, settings=settings, progress=progress)
    if not figures["images"]:
        raise RunError(f"none of the {len(figures['skipped'])} images in {split} of {data} can be read")
    result = {"weights": str(weights), "data": data, "split": split, **figures}
    if path.is_dir():
        write_text(path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    return result


@torch.inference_mode()
def measure(
    model: nn.Module, source: Source, split: str, *, settings: Settings | None = None, progress: bool = False
) -> dict[str, Any]:
    """The figures of a model on one part of the data, the number of images and those that were skipped, with reasons.

    Args:
        model: on any device; it is moved.
        source: the data, opened to be looked at.
        split: a part that they have.
        settings: batch size, workers and memory format; None for the task's own.
        progress: show a progress bar, if the output is a terminal.
    """
    known, device = spec_of(model), device_of()
    plain = settings is not None and not settings.run.channels_last
    layout = torch.contiguous_format if plain else torch.channels_last
    model = model.eval().to(device, memory_format=layout)  # type: ignore[call-overload]
    metrics = known.metrics(source, split).to(device)
    batch_size, workers = (known.at_once, 0) if settings is None else (settings.data.batch_size, settings.data.workers)
    loader: Any = eval_loader(source, split, batch_size=batch_size, workers=workers)
    skipped: dict[str, str] = {}
    seen = 0
    for batch in tracked(loader, f"evaluating on {split}", progress):
        skipped |= {str(source.names[split][index]): reason for index, reason in batch.errors}
        if not len(batch.images):
            continue
        seen += len(batch.images)
        moved = tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)
        images = moved.images
        outputs = model(images.contiguous(memory_format=layout) if isinstance(images, Tensor) else images)
        metrics.update(outputs, moved)
    return {**metrics.compute(), **({"skipped": skipped} if source.files else {}), "images": seen}
