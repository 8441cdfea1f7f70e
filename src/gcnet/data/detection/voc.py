"""Pascal VOC's XML (http://host.robots.ox.ac.uk/pascal/VOC/): one file of boxes per image."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from gcnet.data.classification.samples import shorten
from gcnet.data.detection.annotations import Annotated, Instance, Problems, inside, size_of, sound_box
from gcnet.data.images import EXTENSIONS
from gcnet.data.listing import is_hidden
from gcnet.errors import DataError

LISTS = ("train", "val", "trainval", "test")
LARGEST = 4_000_000  # bytes of an XML file; the tree of it takes up to a hundred times as many
_YES, _NO = ("1", "1.0", "true", "yes"), ("", "0", "0.0", "false", "no")


def is_voc(root: Path) -> bool:
    """Whether the folder holds XML files in `Annotations`, or in folders below."""
    return (root / "Annotations").is_dir() and any((root / "Annotations").rglob("*.xml"))


def read_voc(
    root: Path, *, classes: Sequence[str] | None, strict: bool = False
) -> tuple[list[str], dict[str, list[Annotated]], dict[str, int]]:
    """Read a folder with `Annotations/*.xml`, `JPEGImages` and, if there are splits, `ImageSets/Main/train.txt` ...

    A box counts its pixels from 1, and its last ones are inside: (xmin, ymin, xmax, ymax) becomes
    (xmin - 1, ymin - 1, xmax, ymax). What is marked difficult becomes a crowd. An XML file belongs to the image of its
    own name (in the same folder below), whatever its `<filename>` says; only where there is none, to that of
    `<filename>`. Lists that are there are used: without train.txt, trainval.txt trains; without both, all images that
    val.txt and test.txt do not hold out.

    Returns:
        The class names (sorted, or those given), the images by split ("train" alone where there are no splits), counts
        of what was repaired.

    Raises:
        DataError: a broken XML file, a split that names an image without annotations, a class that is not known, or,
            with `strict`, anything of `KINDS`.
    """
    problems = Problems(root, strict=strict)
    stems = _splits(root, problems)
    parsed = {stem: _parse(root / "Annotations" / f"{stem}.xml") for split in stems.values() for stem in split}
    present = sorted({_text(thing, "name") for tree in parsed.values() for thing in tree.iter("object")} - {""})
    names = present if classes is None else list(classes)
    unknown = [name for name in present if name not in names]
    if unknown:
        raise DataError(f"{root} has classes that are not among the {len(names)} known: {shorten(unknown)}")
    found: dict[str, list[Annotated]] = {}
    numbers = {stem: number for number, stem in enumerate(sorted(parsed), start=1)}
    pictures = _pictures(root)
    for split, members in stems.items():
        images = [_image(root, stem, numbers[stem], parsed[stem], names, pictures, problems) for stem in members]
        found[split] = [image for image in images if image is not None]
    if problems.count("missing image") * 2 > len(parsed):
        raise DataError(
            f"{root}: {problems.count('missing image')} of {len(parsed)} images do not exist "
            f"({shorten(problems.found['missing image'], 3)}; looked in {root / 'JPEGImages'})"
        )
    return names, found, problems.report()


def _splits(root: Path, problems: Problems) -> dict[str, list[str]]:
    """Names of XML files, without suffix and relative to Annotations, by split; what is held out trains nowhere."""
    folder = root / "Annotations"
    files = (file.relative_to(folder) for file in folder.rglob("*.xml"))
    there = sorted(file.with_suffix("").as_posix() for file in files if not any(map(is_hidden, file.parts)))
    listed = {name: _listed(root / "ImageSets" / "Main" / f"{name}.txt") for name in LISTS}
    held = {split: stems for split in ("val", "test") if (stems := listed[split]) is not None}
    first = listed["train"] if listed["train"] is not None else listed["trainval"]
    if first is None and not held:
        return {"train": there}
    out = {stem for stems in held.values() for stem in stems}
    if first is None:
        first = there
    elif listed["train"] is not None:
        for stem in first:
            if stem in out:
                problems.note("in two parts", stem)
    splits = {"train": [stem for stem in first if stem not in out], **held}
    absent = [stem for stems in splits.values() for stem in stems if not _annotations_of(root, stem).is_file()]
    if absent:
        raise DataError(f"{root}: ImageSets/Main names {len(absent)} images without annotations: {shorten(absent)}")
    return splits


def _listed(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    return list(dict.fromkeys(line.split()[0] for line in _decoded(file).splitlines() if line.strip()))


def _annotations_of(root: Path, stem: str) -> Path:
    path = inside(root / "Annotations", f"{stem}.xml")
    if path is None:
        raise DataError(f"{root}: ImageSets/Main names {stem!r}, which leads out of the folder Annotations")
    return path


def _decoded(file: Path) -> str:
    """The text of a file, by its byte order mark, else by the encoding that an XML file declares, else UTF-8."""
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise DataError(f"{file} has {size:,} bytes; annotations of one image have at most {LARGEST:,}")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    declared = re.match(rb"""<\?xml[^>]{0,80}encoding=["']([\w.:-]{1,30})["']""", content)
    encoding = "utf-8-sig" if declared is None else declared[1].decode("ascii")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or content[:4] in (b"<\0?\0", b"\0<\0?"):
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le" if content[1] == 0 else "utf-16"
    try:
        return content.decode("utf-8-sig" if content.startswith(codecs.BOM_UTF8) else encoding)
    except (LookupError, UnicodeError) as error:
        raise DataError(f"{file} is not text in its encoding, {encoding}: {error}") from error


def _parse(file: Path) -> ElementTree.Element:
    text = _decoded(file)

    def refuse(*_: Any) -> None:  # entities can be made to fill the memory
        raise DataError(f"{file} declares entities or a document type, which VOC's files never do; not read")

    first = expat.ParserCreate("utf-8")
    first.StartDoctypeDeclHandler = refuse
    try:
        first.Parse(text, True)
        return ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not readable XML: {error}") from error


def _image(
    root: Path,
    stem: str,
    number: int,
    tree: ElementTree.Element,
    names: list[str],
    pictures: dict[str, Path],
    problems: Problems,
) -> Annotated | None:
    path = _path(root, stem, _text(tree, "filename"), pictures, problems)
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
            difficult = _is_difficult(thing, what, problems)
            instances.append(Instance(1000 * number + place, box, names.index(name), area, difficult))
    return Annotated(path, number, int(height), int(width), tuple(instances))


def _is_difficult(thing: ElementTree.Element, what: str, problems: Problems) -> bool:
    word = _text(thing, "difficult").lower()
    if word not in (*_YES, *_NO):
        problems.note("difficult or not", f"{what}: {word!r}")
    return word not in _NO


def _pictures(root: Path) -> dict[str, Path]:
    """The images below JPEGImages by their names without extension, whose letters may be of any case."""
    folder = root / "JPEGImages"
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder)
        if file.suffix.lower() in EXTENSIONS and not any(map(is_hidden, inner.parts)):
            found.setdefault(inner.with_suffix("").as_posix(), file)
    return found


def _path(root: Path, stem: str, name: str, pictures: dict[str, Path], problems: Problems) -> Path | None:
    """The image that has the stem of the XML file, else the one that the XML names."""
    folder, name = root / "JPEGImages", name.replace("\\", "/")
    named = inside(folder, name) if name else None
    if name and named is None:
        problems.note("unsafe path", name)
        return None
    own = pictures.get(stem)
    if own is not None:
        if inside(folder, own.relative_to(folder).as_posix(), root) is None:
            problems.note("unsafe path", own.name)
            return None
        if named is not None and Path(name).stem != Path(stem).name:
            problems.note("other file name", f"{stem}.xml: {name}")
        return own
    if named is not None and inside(folder, name, root) is not None and named.is_file():
        return named
    problems.note("missing image", name or stem)
    return None


def _text(element: ElementTree.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: ElementTree.Element, tag: str) -> float:
    try:
        return float(_text(element, tag))
    except ValueError:
        return float("nan")
