"""COCO's JSON (https://cocodataset.org/#format-data): images, categories and annotations of one split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcnet.data.classification.samples import shorten
from gcnet.data.detection.annotations import Annotated, Instance, Problems, inside, size_of, sound_box
from gcnet.data.detection.masks import check_segmentation
from gcnet.errors import DataError

Key = tuple[int, int, tuple[float, ...]]


def read_coco(
    file: Path, folders: Sequence[Path], *, classes: Sequence[str] | None, strict: bool = False
) -> tuple[dict[int, str], list[Annotated], dict[str, int]]:
    """Read one annotation file.

    Args:
        file: the JSON file.
        folders: where its images may be; the first one that holds some of them is taken.
        classes: the names that labels are indices into; None for those of the file, by category id.
        strict: refuse what would otherwise be repaired.

    Returns:
        Category names by id, the images with their objects, counts of what was repaired.

    Raises:
        DataError: no COCO annotations of objects, categories that `classes` lacks or that are ambiguous, annotations
            that belong to other images than the folder's, or, with `strict`, anything of `KINDS`.
    """
    content = _content(file)
    categories = _categories(file, content["categories"])
    names = list(categories.values()) if classes is None else list(classes)
    unknown = [name for name in categories.values() if name not in names]
    if unknown:
        raise DataError(f"{file} has categories that are not among the {len(names)} known: {shorten(unknown)}")
    labels = {category: names.index(name) for category, name in categories.items()}
    problems = Problems(file, strict=strict)
    images = _images(content["images"], folders, problems)
    objects = _objects(content["annotations"], images, labels, problems)
    _check_belonging(file, content, folders, problems)
    found = [
        Annotated(path, image_id, height, width, tuple(objects.get(image_id, ())))
        for image_id, (path, height, width) in images.items()
        if path is not None
    ]
    return categories, found, problems.report()


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not readable JSON: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    parts = ("images", "annotations", "categories")
    lacking = [part for part in parts if not isinstance(content, dict) or not isinstance(content.get(part), list)]
    if lacking:
        raise DataError(
            f"{file} is not a COCO file of objects: {' and '.join(map(repr, lacking))} missing (lists); "
            "captions and result files have none"
        )
    return content


def _categories(file: Path, entries: list[Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in entries:
        if not (isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("name"), str)):
            raise DataError(f"{file}: a category without a whole-number id and a name: {entry!r}")
        if entry["id"] in found or entry["name"] in found.values():
            raise DataError(f"{file}: the category id {entry['id']} or name {entry['name']!r} appears twice")
        found[entry["id"]] = entry["name"]
    if not found:
        raise DataError(f"{file} lists no category")
    return dict(sorted(found.items()))


def _images(entries: list[Any], folders: Sequence[Path], problems: Problems) -> dict[int, tuple[Path | None, int, int]]:
    """Path, height and width by id; the path is None where there is no file to read."""
    folder = _folder(entries, folders)
    found: dict[int, tuple[Path | None, int, int]] = {}
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        image_id, name = entry.get("id"), entry.get("file_name")
        if type(image_id) is not int or not isinstance(name, str) or not name:
            problems.note("bad image entry", f"number {place + 1}: id {image_id!r}, file name {name!r}")
            continue
        if image_id in found:
            problems.note("duplicate image", f"{image_id} of {name}")
            continue
        path, size = inside(folder, name), _noted_size(entry)
        if path is None:
            problems.note("unsafe path", name)
        elif not path.is_file():
            problems.note("missing image", name)
            path = None
        elif size is None:
            size = size_of(path, problems)
        found[image_id] = (path, *size) if path is not None and size is not None else (None, 0, 0)
    return found


def _noted_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if type(height) is int and type(width) is int and min(height, width) > 0 else None


def _folder(entries: list[Any], folders: Sequence[Path]) -> Path:
    """The first folder that holds one of the first images."""
    names = [entry["file_name"] for entry in entries if isinstance(entry, dict) and _is_name(entry.get("file_name"))]
    for folder in folders:
        if any((folder / name).is_file() for name in names[:20] if inside(folder, name)):
            return folder
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name)


def _objects(
    entries: list[Any],
    images: Mapping[int, tuple[Path | None, int, int]],
    labels: Mapping[int, int],
    problems: Problems,
) -> dict[int, list[Instance]]:
    found: dict[int, list[Instance]] = {}
    seen: set[Key] = set()
    used: set[int] = set()
    following = max((e["id"] for e in entries if isinstance(e, dict) and type(e.get("id")) is int), default=0) + 1
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        what = f"annotation {entry.get('id', f'number {place + 1}')}"
        box, category, image_id = entry.get("bbox"), entry.get("category_id"), entry.get("image_id")
        if not isinstance(box, list) or not _is_box(box) or type(category) is not int or type(image_id) is not int:
            problems.note("bad annotation", what)
            continue
        if image_id not in images:
            problems.note("unknown image", f"{what}: image {image_id}")
            continue
        path, height, width = images[image_id]
        if category not in labels:
            problems.note("unknown category", f"{what}: category {category}")
            continue
        if path is None:  # counted with its image
            continue
        key = (image_id, category, tuple(box))
        if key in seen and entry.get("id") in used:
            problems.note("duplicate annotation", what)
            continue
        x, y, w, h = box
        sound = sound_box((x, y, x + w, y + h), width, height, f"{what} of {path.name}", problems)
        if sound is None:
            continue
        identity = entry.get("id")
        if identity in used or type(identity) is not int:
            if identity in used:
                problems.note("reused id", what)
            identity, following = following, following + 1
        seen.add(key)
        used.add(identity)
        instance = _instance(entry, identity, sound, labels[category], (height, width), what, problems)
        found.setdefault(image_id, []).append(instance)
    return found


def _instance(
    entry: Mapping[str, Any], identity: int, box: Any, label: int, size: tuple[int, int], what: str, problems: Problems
) -> Instance:
    segmentation = entry.get("segmentation") or None
    if segmentation is not None:
        try:
            segmentation = check_segmentation(segmentation, *size)
        except ValueError as error:
            problems.note("bad mask", f"{what}: {error}")
            segmentation = None
    area = entry.get("area")
    if not isinstance(area, int | float) or not 0 < area < float("inf"):
        area = (box[2] - box[0]) * (box[3] - box[1])
    return Instance(identity, box, label, float(area), entry.get("iscrowd") in (1, True), segmentation)


def _is_box(box: list[Any]) -> bool:
    return len(box) == 4 and all(type(value) in (int, float) for value in box)


def _check_belonging(file: Path, content: Mapping[str, Any], folders: Sequence[Path], problems: Problems) -> None:
    """Refuse annotations of another data set: most of their images, or most of their objects' images, are not here."""
    images, annotations = len(content["images"]), len(content["annotations"])
    if not images:
        raise DataError(f"{file} lists no image")
    if problems.count("missing image") * 2 > images:
        looked = ", ".join(str(folder) for folder in folders)
        raise DataError(
            f"{file}: {problems.count('missing image')} of its {images} images do not exist "
            f"({shorten(problems.found['missing image'], 3)}; looked in {looked}); "
            "are these annotations of another data set?"
        )
    if problems.count("unknown image") * 2 > annotations:
        raise DataError(
            f"{file}: {problems.count('unknown image')} of its {annotations} annotations are of images that it does "
            "not list; they belong to another data set"
        )
