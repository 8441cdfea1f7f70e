"""COCO's JSON (https://cocodataset.org/#format-data): images, categories and annotations of one split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gcnet.data.classification.samples import shorten
from gcnet.data.detection.annotations import Annotated, Box, Instance, Problems, inside, size_of, sound_box
from gcnet.data.detection.masks import check_segmentation
from gcnet.data.images import MAX_PIXELS
from gcnet.errors import DataError

Key = tuple[float, ...]


def read_coco(
    file: Path, folders: Sequence[Path], root: Path, *, classes: Sequence[str] | None, strict: bool = False
) -> tuple[dict[int, str], list[Annotated], dict[str, int]]:
    """Read one annotation file.

    Args:
        file: the JSON file.
        folders: where its images may be; the first one that holds some of them is taken.
        root: the folder of the whole data set, out of which no link is followed.
        classes: the names that labels are indices into; None for those of the file, by category id.
        strict: refuse what would otherwise be repaired.

    Returns:
        Category names by id, the images with their objects, counts of what was repaired.

    Raises:
        DataError: no COCO annotations of objects, categories that `classes` lacks or that are ambiguous, annotations
            that belong to other images than the folder's, or, with `strict`, anything of `KINDS`.
    """
    content = _content(file)
    categories = _categories(file, content)
    names = list(categories.values()) if classes is None else list(classes)
    unknown = [name for name in categories.values() if name not in names]
    if unknown:
        raise DataError(f"{file} has categories that are not among the {len(names)} known: {shorten(unknown)}")
    labels = {category: names.index(name) for category, name in categories.items()}
    problems = Problems(file, strict=strict)
    images = _images(content["images"], folders, root, problems)
    objects = _objects(content["annotations"], images, labels, problems)
    _check_belonging(file, content, folders, problems)
    _check_unit(file, images, objects)
    found = [
        Annotated(image.path, image_id, image.height, image.width, tuple(objects.get(image_id, ())))
        for image_id, image in images.items()
        if image.path is not None and image.id == image_id
    ]
    return categories, found, problems.report()


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())  # UTF-8, or UTF-16 or 32 by their marks
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


class _Image(NamedTuple):
    """The file of an id, None where there is none to read; `id` is that under which the file was listed first."""

    id: int
    path: Path | None
    height: int
    width: int


def _whole(value: Any) -> int | None:
    """The value as a whole number: 1, or 1.0 as tables write it; None if it is something else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _categories(file: Path, content: Mapping[str, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    above: dict[str, list[int]] = {}
    for entry in content["categories"]:
        category = _whole(entry.get("id")) if isinstance(entry, dict) else None
        if category is None or not isinstance(entry.get("name"), str):
            raise DataError(f"{file}: a category without a whole-number id and a name: {entry!r}")
        if category in found or entry["name"] in found.values():
            raise DataError(f"{file}: the category id {category} or name {entry['name']!r} appears twice")
        found[category] = entry["name"]
        above.setdefault(str(entry.get("supercategory")), []).append(category)
    if not found:
        raise DataError(f"{file} lists no category")
    # Roboflow lists the name of the project as category 0, above all others and without an object of its own.
    others = set(found) - {0}
    if (
        found.get(0) in above
        and others == set(above[found[0]])
        and not any(
            isinstance(entry, dict) and _whole(entry.get("category_id")) == 0 for entry in content["annotations"]
        )
    ):
        del found[0]
    return dict(sorted(found.items()))


def _images(entries: list[Any], folders: Sequence[Path], root: Path, problems: Problems) -> dict[int, _Image]:
    folder = _folder(entries, folders)
    found: dict[int, _Image] = {}
    by_path: dict[Path, _Image] = {}
    for place, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        image_id, name = _whole(entry.get("id")), entry.get("file_name")
        if image_id is None or not isinstance(name, str) or not name:
            problems.note("bad image entry", f"number {place + 1}: id {entry.get('id')!r}, file name {name!r}")
            continue
        if image_id in found:
            problems.note("duplicate image", f"{image_id} of {name}")
            continue
        name = name.replace("\\", "/")
        path, size = inside(folder, name, root), _noted_size(entry)
        if path is None:
            problems.note("unsafe path", name)
        elif path in by_path:
            problems.note("listed twice", f"{name}: {by_path[path].id} and {image_id}")
            found[image_id] = by_path[path]
            continue
        elif not path.is_file():
            problems.note("missing image", name)
            path = None
        elif size is None:
            size = size_of(path, problems)
        found[image_id] = _Image(image_id, None, 0, 0)
        if path is not None and size is not None:
            found[image_id] = by_path[path] = _Image(image_id, path, *size)
    return found


def _noted_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = _whole(entry.get("height")), _whole(entry.get("width"))
    return (height, width) if height and width and min(height, width) > 0 and height * width <= MAX_PIXELS else None


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
    images: Mapping[int, _Image],
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
        box, category, image_id = entry.get("bbox"), _whole(entry.get("category_id")), _whole(entry.get("image_id"))
        if not isinstance(box, list) or not _is_box(box) or category is None or image_id is None:
            problems.note("bad annotation", what)
            continue
        if image_id not in images:
            problems.note("unknown image", f"{what}: image {image_id}")
            continue
        image_id, path, height, width = images[image_id]
        if category not in labels:
            problems.note("unknown category", f"{what}: category {category}")
            continue
        if path is None:  # counted with its image
            continue
        key, identity = (image_id, category, *box), _whole(entry.get("id"))
        if key in seen and identity in used:
            problems.note("duplicate annotation", what)
            continue
        sound = _corners(box, width, height, f"{what} of {path.name}", problems)
        if sound is None:
            continue
        if identity in used or identity is None:
            if identity in used:
                problems.note("reused id", what)
            identity, following = following, following + 1
        seen.add(key)
        used.add(identity)
        instance = _instance(entry, identity, sound, labels[category], (height, width), what, problems)
        found.setdefault(image_id, []).append(instance)
    return found


def _corners(box: list[Any], width: int, height: int, what: str, problems: Problems) -> Box | None:
    x, y, w, h = box
    try:
        return sound_box((x, y, x + w, y + h), width, height, what, problems)
    except OverflowError:  # whole numbers of hundreds of digits
        problems.note("not finite", what)
        return None


def _instance(
    entry: Mapping[str, Any], identity: int, box: Any, label: int, size: tuple[int, int], what: str, problems: Problems
) -> Instance:
    segmentation = entry.get("segmentation") or None
    if segmentation is not None:
        try:
            parts, segmentation = segmentation, check_segmentation(segmentation, *size)
            if len(segmentation) < len(parts):
                problems.note("broken polygon", f"{what}: {len(parts) - len(segmentation)} of {len(parts)}")
        except ValueError as error:
            problems.note("bad mask", f"{what}: {error}")
            segmentation = None
    area = entry.get("area")
    if not isinstance(area, int | float) or not 0 < area < 1e300:
        area = (box[2] - box[0]) * (box[3] - box[1])
    return Instance(identity, box, label, float(area), entry.get("iscrowd") in (1, True), segmentation)


def _is_box(box: list[Any]) -> bool:
    return len(box) == 4 and {*map(type, box)} <= {int, float}


def _check_unit(file: Path, images: Mapping[int, _Image], objects: Mapping[int, list[Instance]]) -> None:
    """Refuse boxes that are fractions of the image: in COCO's files they are pixels."""
    boxes = [one.box for found in objects.values() for one in found]
    widest = max((max(image.height, image.width) for image in images.values()), default=0)
    if boxes and widest > 4 and all(max(box) <= 1 for box in boxes):
        raise DataError(
            f"{file}: all {len(boxes)} boxes lie between 0 and 1, in images of up to {widest} pixels: these are "
            "fractions of the image; multiply x and width by the image's width, y and height by its height"
        )


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
