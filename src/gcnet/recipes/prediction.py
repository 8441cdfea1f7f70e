"""`predict`: classes of photographs, or the objects in them; a broken file is an entry and does not stop the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from gcnet.analysis.grids import picture_of
from gcnet.errors import SettingsError
from gcnet.files.atomic import write_atomically, write_text
from gcnet.recipes.inputs import device_of, find_images, stored_model
from gcnet.report.attention import NO_MAP, attention_maps, draw_attention, last_of_stages
from gcnet.report.terminal import tracked
from gcnet.report.texts import to_csv
from gcnet.surgery import record
from gcnet.tasks.spec import Prediction
from gcnet.tasks.table import spec_of

TABLES = ("predictions.json", "predictions.csv")
COLUMNS = ("path", "class", "score", "error")
MARK = ("Software", "gcnet predict")  # in every picture that is written
Readable = tuple[Path, Prediction, Tensor]  # the files beside it begin like this; what was found; the image


def predict(
    weights: str | Path | nn.Module,
    images: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    threshold: float = 0.5,
    show_attention: bool = False,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """The class of every image, or for a detector the objects in it.

    Args:
        weights: the folder of a run, a file of `gcnet.save_checkpoint`, or a model.
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
        SettingsError: no image found, a model that does not read photographs, or one without an attention map to show;
            a file in `out` that would be written over and is one of the images, or was not made by this function.
    """
    if not 0 <= threshold <= 1:
        raise SettingsError(f"threshold={threshold!r}: allowed are scores from 0 to 1")
    if show_attention and out is None:
        raise SettingsError("show_attention=True draws pictures; say where they go by out")
    model = stored_model(weights)
    known = spec_of(model)
    if known.predict is None:
        raise SettingsError("weights are of a model that does not read photographs")
    paths = find_images(images)
    names = file_names(paths)
    if out is not None:
        written = TABLES if known.draw is None else tuple(name + end for name in names for end in (".png", ".json"))
        written += tuple(f"{name}.attention.png" for name in names if show_attention)
        _check_free([Path(out) / name for name in written], paths)
    model = model.eval().to(device_of())
    results: list[dict[str, Any]] = []
    for start in tracked(range(0, len(paths), known.at_once), "predicting", progress):
        part = slice(start, start + known.at_once)
        with attention_maps(model) if show_attention else nullcontext({}) as maps:
            found = known.predict(model, paths[part], threshold)
        results += [one.entry for one in found]
        if out is not None:
            files = (Path(out) / name for name in names[part])
            readable = [(file, one, one.seen) for file, one in zip(files, found, strict=True) if one.seen is not None]
            if known.draw is not None:
                _draw(readable, known.draw)
            if show_attention and readable:
                _draw_attention(readable, maps, model)
    if out is not None and known.draw is None:
        write_text(Path(out) / "predictions.json", json.dumps(results, indent=2) + "\n")
        rows = [{name: entry[name] for name in COLUMNS} for entry in results]
        write_text(Path(out) / "predictions.csv", to_csv(rows))
    return results


def _check_free(files: Sequence[Path], images: Sequence[Path]) -> None:
    """Refuse to write over an image that is looked at, or over a file of somebody else's."""
    inputs = {path.resolve() for path in images}
    for file in files:
        if file.resolve() in inputs or (file.exists() and not _is_ours(file)):
            raise SettingsError(f"out={str(file.parent)!r}: {file.name} would be written over; give another folder")


def _is_ours(file: Path) -> bool:
    """Whether an earlier call wrote it."""
    name, value = MARK
    try:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                return picture.info.get(name) == value
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".csv":
            return text.startswith(",".join(COLUMNS) + "\n")
        content = json.loads(text)
        return all({"path", "error"} <= set(entry) for entry in (content if isinstance(content, list) else [content]))
    except (OSError, TypeError, ValueError):
        return False


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
    mark = PngInfo()
    mark.add_text(*MARK)
    write_atomically(file, lambda target: picture.save(target, format="PNG", pnginfo=mark))


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
