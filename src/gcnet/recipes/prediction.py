"""`predict`: classes of photographs, or the objects in them; a broken file is an entry and does not stop the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from gcnet.analysis.grids import picture_of
from gcnet.errors import SettingsError
from gcnet.files.atomic import write_atomically, write_text
from gcnet.recipes.inputs import device_of, find_images, stored_model
from gcnet.report.attention import NO_MAP, attention_maps, draw_attention, last_of_stages
from gcnet.report.terminal import tracked
from gcnet.surgery import record
from gcnet.tasks.spec import Prediction
from gcnet.tasks.table import spec_of

Readable = tuple[Path, Prediction, Tensor]  # the files beside it begin like this; what was found; the image


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
    known = spec_of(model)
    if known.predict is None:
        raise SettingsError(f"weights={str(weights)!r} is of a model that does not read photographs")
    paths = find_images(images)
    names = file_names(paths)
    model = model.eval().to(device_of())
    results: list[dict[str, Any]] = []
    for start in tracked(range(0, len(paths), known.at_once), "predicting", progress):
        part = slice(start, start + known.at_once)
        with attention_maps(model) if show_attention else nullcontext({}) as maps:
            found = known.predict(model, paths[part], threshold)
        results += [one.entry for one in found]
        if out is not None:
            readable = _readable([Path(out) / name for name in names[part]], found)
            if known.draw is not None:
                _draw(readable, known.draw)
            if show_attention and readable:
                _draw_attention(readable, maps, model)
    if out is not None and known.draw is None:
        _write_tables(Path(out), results)
    return results


def _readable(files: Sequence[Path], found: Sequence[Prediction]) -> list[Readable]:
    return [(file, one, one.seen) for file, one in zip(files, found, strict=True) if one.seen is not None]


def _draw(readable: list[Readable], draw: Callable[[Tensor, Mapping[str, Any]], Tensor]) -> None:
    """What was found in each image as a picture and as JSON."""
    for file, one, image in readable:
        _write_picture(_beside(file, ".png"), draw(image, one.entry))
        write_text(_beside(file, ".json"), json.dumps(one.entry, indent=2) + "\n")


def _draw_attention(readable: list[Readable], maps: dict[str, Tensor], model: nn.Module) -> None:
    """The map of each stage's last block over each image."""
    if not maps:
        raise SettingsError(NO_MAP)
    last = {name.removeprefix("backbone.body."): map_ for name, map_ in last_of_stages(maps).items()}
    preprocessing = record.preprocessing(model) or {}
    for b, (file, one, seen) in enumerate(readable):
        if seen.is_floating_point():
            seen = picture_of(seen, preprocessing.get("mean"), preprocessing.get("std"))
        own = {name: map_[b] for name, map_ in last.items()}
        _write_picture(_beside(file, ".attention.png"), draw_attention(seen, own, one.share()))


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _write_picture(file: Path, image: Tensor) -> None:
    """uint8 (3, H, W) as PNG."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    write_atomically(file, lambda target: picture.save(target, format="PNG"))


def file_names(paths: Sequence[Path]) -> list[str]:
    """Names for the files written: the images' own without extension, numbered where two have the same."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names


def _write_tables(out: Path, results: list[dict[str, Any]]) -> None:
    write_text(out / "predictions.json", json.dumps(results, indent=2) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", "class", "score", "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_text(out / "predictions.csv", text.getvalue())
