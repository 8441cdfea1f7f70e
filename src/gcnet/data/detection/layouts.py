"""A folder of annotated images: COCO's JSON or Pascal VOC's XML, with train, validation and test parts."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gcnet.data.classification.samples import DataWarning, shorten
from gcnet.data.detection.annotations import Annotated, DetectionData
from gcnet.data.detection.coco import read_coco
from gcnet.data.detection.voc import is_voc, read_voc
from gcnet.errors import DataError, GcnetError

__all__ = ["DetectionData", "load_detection"]

LAYOUTS = """Allowed layouts:
  DIR/annotations/instances_train2017.json   also instances_val..., instances_test...; images in DIR/train2017 (train),
                                             DIR/images/train2017 (train), DIR/images or DIR
  DIR/train/_annotations.coco.json           beside its images; also val (valid) and test
  DIR/Annotations/*.xml                      Pascal VOC: images in DIR/JPEGImages, splits in
                                             DIR/ImageSets/Main/train.txt, val.txt, test.txt"""
_BESIDE = "_annotations.coco.json"


def load_detection(
    path: str | Path,
    *,
    masks: bool = False,
    classes: Sequence[str] | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    strict: bool = False,
) -> DetectionData:
    """Find annotated images, their classes and their splits; images are opened only where their size is not noted.

    Faulty annotations are counted and named in warnings, and left out or repaired, as
    `gcnet.data.detection.annotations.KINDS` says kind by kind. Training images without any
    object are left out. Without a validation part one is taken from the training images, decided by the seed and the
    file names alone.

    Args:
        path: the folder.
        masks: whether objects need masks; those without are left out.
        classes: class names in the order of the labels, for instance a trained model's; None takes those of the
            training part, by category id (COCO) or sorted (VOC).
        val_fraction: the share of the training images taken for validation where there is no such part; 0 for none.
        seed: decides which ones.
        strict: refuse faulty annotations.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: a layout that is not allowed, files that cannot be used, annotations of another data set, or faults
            with `strict`.

    Warns:
        DataWarning: what was left out or repaired.
    """
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
        raise GcnetError(f"val_fraction={val_fraction!r}; allowed is 0 (no validation part) to below 1")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; data must be a folder of annotated images")
    if is_voc(path):
        names, parts, problems = read_voc(path, classes=classes, strict=strict)
        ids = tuple(range(1, len(names) + 1))
    else:
        names, ids, parts, problems = _read_coco_splits(path, classes, strict)
    if masks:
        parts = {split: _with_masks(path, split, images) for split, images in parts.items()}
    empty = [image.path.name for image in parts.get("train", ()) if not image.instances]
    if empty:
        warnings.warn(
            f"{path}: {len(empty)} training images without any object: left out ({shorten(empty, 3)})",
            DataWarning,
            stacklevel=2,
        )
        parts["train"] = [image for image in parts["train"] if image.instances]
    if not any(parts.values()):
        raise DataError(f"{path} holds no annotated image that can be used")
    _check_crowds(path, parts)
    if val_fraction > 0 and "val" not in parts and len(parts.get("train", ())) > 1:
        _take_validation(parts, val_fraction, seed)
    splits = {split: tuple(parts.get(split, ())) for split in ("train", "val", "test")}
    return DetectionData(path, tuple(names), ids, **splits, problems=problems)


def _check_crowds(path: Path, parts: dict[str, list[Annotated]]) -> None:
    """Nothing is learnt of crowds, nor are they counted as missed."""
    for split, images in parts.items():
        objects = [one.crowd for image in images for one in image.instances]
        if objects and all(objects):
            said = f"{path}: each of the {len(objects)} objects in {split} is a crowd (iscrowd 1, or difficult)"
            if split == "train":
                raise DataError(f"{said}, of which nothing is learnt; mark as crowds what stands for many objects")
            warnings.warn(f"{said}: there is nothing to be found in it", DataWarning, stacklevel=3)


def _read_coco_splits(
    root: Path, classes: Sequence[str] | None, strict: bool
) -> tuple[list[str], tuple[int, ...], dict[str, list[Annotated]], dict[str, int]]:
    files = _coco_files(root)
    if not files:
        others = sorted(file.name for file in (root / "annotations").glob("*.json"))
        unclear = f" that name their part ({shorten(others)} do not)" if others else ""
        raise DataError(f"{root} holds no annotations{unclear}.\n{LAYOUTS}")
    given, names, by_name = classes is not None, list(classes or ()), {}
    parts: dict[str, list[Annotated]] = {}
    problems: Counter[str] = Counter()
    for split in (split for split in ("train", "val", "test") if split in files):
        file, folders = files[split]
        categories, parts[split], found = read_coco(file, folders, root, classes=names or None, strict=strict)
        problems.update(found)
        if not given and not names:
            names = list(categories.values())
        by_name |= {name: category for category, name in reversed(categories.items()) if name not in by_name}
    _keep_apart(root, parts)
    if any(name not in by_name for name in names):  # classes given from outside that the files do not have
        return names, tuple(range(1, len(names) + 1)), parts, dict(problems)
    return names, tuple(by_name[name] for name in names), parts, dict(problems)


def _keep_apart(root: Path, parts: dict[str, list[Annotated]]) -> None:
    """What is held out is not trained with."""
    held = {image.path for split in ("val", "test") for image in parts.get(split, ())}
    both = [image.path.name for image in parts.get("train", ()) if image.path in held]
    if both:
        warnings.warn(
            f"{root}: {len(both)} images are in train and are held out, too: not trained with ({shorten(both, 3)})",
            DataWarning,
            stacklevel=4,
        )
        parts["train"] = [image for image in parts["train"] if image.path not in held]


def _coco_files(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """The annotation file of each split, and where its images may be."""
    found: dict[str, tuple[Path, list[Path]]] = {}
    for split, spellings in (("train", ("train",)), ("val", ("val", "valid", "validation")), ("test", ("test",))):
        beside = [root / name for name in spellings if (root / name / _BESIDE).is_file()]
        if beside:
            found[split] = (beside[0] / _BESIDE, [beside[0]])
            continue
        files = [file for file in sorted((root / "annotations").glob("*.json")) if _split_of(file.stem) == split]
        instances = [file for file in files if file.stem.startswith("instances")]
        files = instances or files
        if len(files) > 1:
            names = shorten([file.name for file in files])
            raise DataError(f"{root / 'annotations'} holds {len(files)} files for {split}: {names}; keep one of them")
        if files:
            part = files[0].stem.rpartition("_")[2]  # instances_train2017 -> train2017
            names = dict.fromkeys((part, *spellings))
            folders = [base / name for name in names for base in (root, root / "images")]
            found[split] = (files[0], [*folders, root / "images", root])
    others = [file for file in sorted((root / "annotations").glob("*.json")) if not _split_of(file.stem)]
    if not found and len(others) == 1:  # CVAT and Datumaro write one part, called default
        part = others[0].stem.rpartition("_")[2]
        found["train"] = (others[0], [root / "images" / part, root / part, root / "images", root])
    return found


def _split_of(stem: str) -> str:
    part = stem.lower().rpartition("_")[2]
    return next((split for split in ("train", "val", "test") if part.startswith(split)), "")


def _with_masks(path: Path, split: str, images: list[Annotated]) -> list[Annotated]:
    kept = [
        image._replace(instances=tuple(one for one in image.instances if one.segmentation is not None))
        for image in images
    ]
    before, after = (sum(len(image.instances) for image in part) for part in (images, kept))
    if before and not after:
        raise DataError(f"{path}: none of the {before} objects in {split} has a mask; use the task detect")
    if after < before:
        warnings.warn(
            f"{path}: {before - after} of {before} objects in {split} have no mask: left out", DataWarning, stacklevel=3
        )
    return kept


def _take_validation(parts: dict[str, list[Annotated]], fraction: float, seed: int) -> None:
    train = sorted(parts["train"], key=lambda image: image.path.as_posix())
    count = min(max(1, round(len(train) * fraction)), len(train) - 1)
    taken = set(random.Random(seed).sample(range(len(train)), count))
    parts["train"] = [image for place, image in enumerate(train) if place not in taken]
    parts["val"] = [image for place, image in enumerate(train) if place in taken]
