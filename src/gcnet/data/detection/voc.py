"""Pascal VOC's XML (http://host.robots.ox.ac.uk/pascal/VOC/): one file of boxes per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from gcnet.data.classification.samples import shorten
from gcnet.data.detection.annotations import Annotated, Instance, Problems, inside, size_of, sound_box
from gcnet.data.images import EXTENSIONS
from gcnet.errors import DataError

SPLITS = ("train", "val", "test")


def is_voc(root: Path) -> bool:
    """Whether the folder holds `Annotations/*.xml`."""
    return (root / "Annotations").is_dir() and any((root / "Annotations").glob("*.xml"))


def read_voc(
    root: Path, *, classes: Sequence[str] | None, strict: bool = False
) -> tuple[list[str], dict[str, list[Annotated]], dict[str, int]]:
    """Read a folder with `Annotations/*.xml`, `JPEGImages` and, if there are splits, `ImageSets/Main/train.txt` ...

    A box counts its pixels from 1, and its last ones are inside: (xmin, ymin, xmax, ymax) becomes
    (xmin - 1, ymin - 1, xmax, ymax). What is marked difficult becomes a crowd.

    Returns:
        The class names (sorted, or those given), the images by split ("train" alone where there are no splits), counts
        of what was repaired.

    Raises:
        DataError: a broken XML file, a split that names an image without annotations, a class that is not known, or,
            with `strict`, anything of `KINDS`.
    """
    stems = _splits(root)
    problems = Problems(root, strict=strict)
    parsed = {stem: _parse(root / "Annotations" / f"{stem}.xml") for split in stems.values() for stem in split}
    present = sorted({_text(thing, "name") for tree in parsed.values() for thing in tree.iter("object")} - {""})
    names = present if classes is None else list(classes)
    unknown = [name for name in present if name not in names]
    if unknown:
        raise DataError(f"{root} has classes that are not among the {len(names)} known: {shorten(unknown)}")
    found: dict[str, list[Annotated]] = {}
    numbers = {stem: number for number, stem in enumerate(sorted(parsed), start=1)}
    for split, members in stems.items():
        images = [_image(root, stem, numbers[stem], parsed[stem], names, problems) for stem in members]
        found[split] = [image for image in images if image is not None]
    if problems.count("missing image") * 2 > len(parsed):
        raise DataError(
            f"{root}: {problems.count('missing image')} of {len(parsed)} images do not exist "
            f"({shorten(problems.found['missing image'], 3)}; looked in {root / 'JPEGImages'})"
        )
    return names, found, problems.report()


def _splits(root: Path) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    for split in SPLITS:
        file = root / "ImageSets" / "Main" / f"{split}.txt"
        if file.is_file():
            listed[split] = list(
                dict.fromkeys(line.split()[0] for line in file.read_text().splitlines() if line.strip())
            )
    if not listed:
        return {"train": sorted(file.stem for file in (root / "Annotations").glob("*.xml"))}
    absent = [stem for stems in listed.values() for stem in stems if not _annotations_of(root, stem).is_file()]
    if absent:
        raise DataError(f"{root}: ImageSets/Main names {len(absent)} images without annotations: {shorten(absent)}")
    return listed


def _annotations_of(root: Path, stem: str) -> Path:
    path = inside(root / "Annotations", f"{stem}.xml")
    if path is None:
        raise DataError(f"{root}: ImageSets/Main names {stem!r}, which leads out of the folder Annotations")
    return path


def _parse(file: Path) -> ElementTree.Element:
    try:
        text = file.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:  # entities can be made to fill the memory
            raise DataError(f"{file} declares entities or a document type, which VOC's files never do; not read")
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is not readable XML: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error


def _image(
    root: Path, stem: str, number: int, tree: ElementTree.Element, names: list[str], problems: Problems
) -> Annotated | None:
    path = _path(root, stem, _text(tree, "filename"), problems)
    if path is None:
        return None
    height, width = (_number(tree, f"size/{side}") for side in ("height", "width"))
    if not (height >= 1 and width >= 1):
        size = size_of(path, problems)
        if size is None:
            return None
        height, width = size
    instances: list[Instance] = []
    for place, thing in enumerate(tree.iter("object"), start=1):
        what, name = f"object {place} of {stem}.xml", _text(thing, "name")
        corners = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not name or None in corners:
            problems.note("bad annotation", what)
            continue
        x1, y1, x2, y2 = (_number(thing, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
        box = sound_box((x1 - 1, y1 - 1, x2, y2), int(width), int(height), what, problems)
        if box is not None:
            area = (box[2] - box[0]) * (box[3] - box[1])
            instances.append(
                Instance(1000 * number + place, box, names.index(name), area, _text(thing, "difficult") == "1")
            )
    return Annotated(path, number, int(height), int(width), tuple(instances))


def _path(root: Path, stem: str, name: str, problems: Problems) -> Path | None:
    """The file that the XML names, else the one in JPEGImages that has its stem."""
    folder = root / "JPEGImages"
    path = inside(folder, name) if name else None
    if name and path is None:
        problems.note("unsafe path", name)
        return None
    if path is not None and path.is_file():
        return path
    for extension in sorted(EXTENSIONS):
        if (folder / f"{stem}{extension}").is_file():
            return folder / f"{stem}{extension}"
    problems.note("missing image", name or stem)
    return None


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: ElementTree.Element, tag: str) -> float:
    try:
        return float(_text(element, tag))
    except ValueError:
        return float("nan")
