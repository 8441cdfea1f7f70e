"""`predict`: classes of photographs, or the objects in them; a broken file is an entry and does not stop the others."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from gcnet.analysis.grids import picture_of
from gcnet.data.classification.transforms import eval_transform
from gcnet.data.images import read_image
from gcnet.errors import ImageError, SettingsError
from gcnet.files.atomic import write_text
from gcnet.recipes.inputs import device_of, find_images, stored_model
from gcnet.report.attention import NO_MAP, attention_maps, draw_attention, last_of_stages
from gcnet.surgery import record
from gcnet.tasks.detection.module import task_of
from gcnet.tasks.detection.predict import file_names, predict_objects, write_picture

BATCH = 32


def predict(
    weights: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    threshold: float = 0.5,
    show_attention: bool = False,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """The class of every image, or for a detector the objects in it.

    Args:
        weights: the folder of a run, or a file of `gcnet.save_checkpoint`.
        images: files and folders; folders are searched at any depth for files with an image's extension.
        out: a folder that gets `predictions.csv` and `predictions.json`, of a detector for each image a picture (boxes,
            masks, scores) and a JSON file with its name; None to write nothing.
        threshold: of a detector the lowest score that is given out, 0 to 1.
        show_attention: also write `NAME.attention.png` into `out`, the image (of a classifier as it saw it) under the
            attention map of the last block of each stage.
        progress: show a progress bar, if the output is a terminal.

    Returns:
        One dict per image in the order given. Of a detector: path, width, height, objects (class, score, box as x1, y1,
        x2, y2, and mask as COCO's run lengths), error; else path, class, score, top (up to five of class and score),
        error. Of a file that cannot be read error says why, and class and score are None.

    Raises:
        RunError, CheckpointError: no usable model there.
        SettingsError: no image found, a model that does not read photographs, or one without an attention map to show.
    """
    if not 0 <= threshold <= 1:
        raise SettingsError(f"threshold={threshold!r}: allowed are scores from 0 to 1")
    if show_attention and out is None:
        raise SettingsError("show_attention=True draws pictures; say where they go by out")
    model = stored_model(weights)
    if task_of(model) is not None:
        return predict_objects(
            model,
            find_images(images),
            classes=record.classes(model),
            out=None if out is None else Path(out),
            threshold=threshold,
            show_attention=show_attention,
            progress=progress,
        )
    preprocessing = getattr(model, "gcnet_preprocessing", None)
    if preprocessing is None:
        raise SettingsError(f"weights={str(weights)!r} is of a model that does not read photographs")
    paths = find_images(images)
    device = device_of()
    model = model.to(device)
    transform = eval_transform(preprocessing)
    results: list[dict[str, Any]] = []
    starts: Iterable[int] = range(0, len(paths), BATCH)
    if progress and sys.stdout.isatty():
        starts = track(list(starts), "predicting", transient=True)
    names = file_names(paths)
    for start in starts:
        part = slice(start, start + BATCH)
        with attention_maps(model) if show_attention else nullcontext({}) as maps:
            entries, seen = _predict_batch(model, paths[part], transform, device)
        if show_attention and seen is not None:
            if not maps:
                raise SettingsError(NO_MAP)
            files = [Path(out or "") / f"{name}.attention.png" for name in names[part]]
            good = [file for file, entry in zip(files, entries, strict=True) if entry["error"] is None]
            _draw_attention(good, seen, maps, preprocessing)
        results += entries
    if out is not None:
        _write(Path(out), results)
    return results


@torch.inference_mode()
def _predict_batch(
    model: nn.Module, paths: list[Path], transform: Any, device: torch.device
) -> tuple[list[dict[str, Any]], Tensor | None]:
    """An entry for every file, and the images that could be read as the model saw them."""
    results: list[dict[str, Any]] = []
    tensors = []
    for path in paths:
        entry: dict[str, Any] = {"path": str(path), "class": None, "score": None, "top": [], "error": None}
        try:
            tensors.append(transform(read_image(path)))
        except ImageError as error:
            entry["error"] = error.reason
        results.append(entry)
    good = [entry for entry in results if entry["error"] is None]
    if not good:
        return results, None
    images = torch.stack(tensors)
    scores = model(images.to(device)).float().softmax(1).cpu()
    names = getattr(model, "gcnet_classes", None) or [str(index) for index in range(scores.shape[1])]
    for entry, row in zip(good, scores, strict=True):
        values, indices = row.topk(min(5, len(names)))
        entry["top"] = [
            {"class": names[index], "score": value}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]
        entry |= entry["top"][0]
    return results, images


def _draw_attention(files: list[Path], images: Tensor, maps: dict[str, Tensor], preprocessing: dict[str, Any]) -> None:
    for b, (file, image) in enumerate(zip(files, images, strict=True)):
        own = {name: map_[b] for name, map_ in last_of_stages(maps).items()}
        write_picture(file, draw_attention(picture_of(image, preprocessing["mean"], preprocessing["std"]), own))


def _write(out: Path, results: list[dict[str, Any]]) -> None:
    write_text(out / "predictions.json", json.dumps(results, indent=2) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", "class", "score", "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_text(out / "predictions.csv", text.getvalue())
