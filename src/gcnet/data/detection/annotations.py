"""Annotated images, and what can be wrong with their annotations: counted, named, repaired or refused."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gcnet.data.classification.samples import DataWarning, shorten
from gcnet.data.images import read_image
from gcnet.errors import DataError, ImageError

Box = tuple[float, float, float, float]
TOLERANCE = 1.0  # pixels that a box may reach outside its image, as rounding leaves it

# What can be wrong with annotations, and what is done about it unless `strict` refuses.
KINDS = {
    "missing image": "image files do not exist: left out",
    "unsafe path": "file names lead out of the image folder: left out, never opened",
    "bad image entry": "entries of images lack a whole-number id or a file name: left out",
    "no size": "images without a width and height: read from the files",
    "unreadable image": "images without a width and height cannot be read either: left out",
    "duplicate image": "image ids appear twice: the later ones are left out",
    "unknown image": "annotations are of an image that is not listed: left out",
    "unknown category": "annotations are of a category that is not listed: left out",
    "bad annotation": "annotations lack an image, a category or a box of four numbers: left out",
    "duplicate annotation": "annotations repeat an earlier one: left out",
    "reused id": "annotations reuse the id of another one: kept, with ids of their own",
    "not finite": "boxes hold NaN or infinity: left out",
    "no area": "boxes have no area: left out",
    "outside": "boxes lie outside their image: left out",
    "reaching out": "boxes reach out of their image: clipped to it",
    "bad mask": "masks cannot be read (size, run lengths or corners): left out, their boxes stay",
    "broken polygon": "masks have a polygon that cannot be read beside others: left out, the others stay",
    "listed twice": "images are listed twice, under two ids: their objects are put together",
    "in two parts": "images are held out and in the list for training: not trained with",
    "other file name": "XML files name another image than that of their own name, to which they belong: not followed",
    "difficult or not": "objects are marked difficult by a word that is neither yes nor no: taken for difficult",
}


class Instance(NamedTuple):
    """One object: box (x1, y1, x2, y2) in pixels, class index, area in pixels, COCO's polygons or run lengths.

    A crowd (also what VOC calls difficult) is neither trained on nor counted as missed.
    """

    id: int
    box: Box
    label: int
    area: float
    crowd: bool = False
    segmentation: Any = None


class Annotated(NamedTuple):
    """One image file, its id and size in pixels, its objects."""

    path: Path
    image_id: int
    height: int
    width: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class DetectionData:
    """Images with boxes (and masks), in up to three splits.

    Args:
        root: the folder that was opened.
        classes: class names; a label is an index into them.
        category_ids: the ids of the classes in the files, in the same order; of VOC 1 to C.
        train, val, test: the images; training images without any object are left out.
        problems: how many annotations were left out or repaired, by the kinds of `KINDS`.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: tuple[Annotated, ...] = ()
    val: tuple[Annotated, ...] = ()
    test: tuple[Annotated, ...] = ()
    problems: Mapping[str, int] = field(default_factory=dict)


class Problems:
    """Collects what is wrong in one file or folder of annotations.

    Args:
        source: the file or folder, for messages.
        strict: refuse instead of repairing.
    """

    def __init__(self, source: Path, *, strict: bool) -> None:
        self.source = source
        self.strict = strict
        self.found: dict[str, list[str]] = {}

    def note(self, kind: str, what: str) -> None:
        """Count one problem; `what` names the image or annotation."""
        assert kind in KINDS
        self.found.setdefault(kind, []).append(what)

    def count(self, kind: str) -> int:
        return len(self.found.get(kind, ()))

    def report(self) -> dict[str, int]:
        """Say what was found, a warning per kind, or refuse it all at once; return the counts.

        Raises:
            DataError: with `strict`, if anything was found.
        """
        lines = [f"{len(names)} {KINDS[kind]} ({shorten(names, 3)})" for kind, names in self.found.items()]
        if lines and self.strict:
            raise DataError(f"{self.source} has faults, and strict refuses to repair them: " + "; ".join(lines))
        for line in lines:
            warnings.warn(f"{self.source}: {line}", DataWarning, stacklevel=3)
        return {kind: len(names) for kind, names in self.found.items()}


def sound_box(box: Sequence[float], width: int, height: int, what: str, problems: Problems) -> Box | None:
    """The box as it can be used, or None; what is wrong with it is noted.

    A box reaching out by at most `TOLERANCE` stays as it is, so that figures equal those of other programs.
    """
    x1, y1, x2, y2 = map(float, box)
    if not math.isfinite(x1 + y1 + x2 + y2):
        problems.note("not finite", what)
    elif x2 <= x1 or y2 <= y1:
        problems.note("no area", what)
    elif min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        problems.note("outside", what)
    elif min(x1, y1, width - x2, height - y2) < -TOLERANCE:
        problems.note("reaching out", what)
        return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    else:
        return x1, y1, x2, y2
    return None


def inside(folder: Path, name: str, root: Path | None = None) -> Path | None:
    """The path of a file named relative to a folder, or None if it leads out of it.

    With `root`, the folder of the whole data set, links are followed too, and may not lead out of both.
    """
    path = folder / name
    if "\0" in name or not os.path.abspath(path).startswith(os.path.abspath(folder) + os.sep):
        return None
    if root is None:
        return path
    real = os.path.realpath(path)
    return path if real.startswith((_real(folder), _real(root))) else None


@cache
def _real(folder: Path) -> str:
    return os.path.realpath(folder) + os.sep


def size_of(path: Path, problems: Problems) -> tuple[int, int] | None:
    """Height and width of an image file whose annotations do not say them; None if it cannot be read."""
    try:
        width, height = read_image(path).size
    except ImageError as error:
        problems.note("unreadable image", str(error))
        return None
    problems.note("no size", path.name)
    return height, width


def fingerprint(data: DetectionData) -> str:
    """Sha256 over split, path, size in bytes and objects of every image, and the class order; pixels are not read."""
    lines = [f"classes\t{list(data.classes)!r}"]
    for split, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        for image in images:
            size = image.path.stat().st_size if image.path.exists() else "unreadable"
            relative = Path(os.path.relpath(image.path, data.root)).as_posix()
            objects = [instance._replace(segmentation=None) for instance in image.instances]
            lines.append(f"{split}\t{relative}\t{size}\t{objects!r}")
    text = "\n".join([lines[0], *sorted(lines[1:])])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def as_coco(images: Sequence[Annotated], classes: Sequence[str]) -> dict[str, Any]:
    """The images as COCO's ground truth: boxes as x, y, width, height; a category's id is its label plus 1."""
    annotations = []
    for image in images:
        for instance in image.instances:
            x1, y1, x2, y2 = instance.box
            entry = {
                "id": len(annotations) + 1,
                "image_id": image.image_id,
                "category_id": instance.label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": instance.area,
                "iscrowd": int(instance.crowd),
            }
            if instance.segmentation is not None:
                entry["segmentation"] = instance.segmentation
            annotations.append(entry)
    return {
        "images": [{"id": image.image_id, "height": image.height, "width": image.width} for image in images],
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(classes)],
    }
