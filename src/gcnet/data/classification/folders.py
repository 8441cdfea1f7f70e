"""A folder of class folders, or a CSV file, as a labelled set of images with train, validation and test parts."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path

from gcnet.data.classification.samples import LAYOUTS, ClassificationData, DataWarning, Sample, fingerprint, shorten
from gcnet.data.classification.tables import list_csv
from gcnet.data.images import EXTENSIONS
from gcnet.data.listing import Listing, list_folder
from gcnet.errors import DataError, GcnetError

__all__ = ["ClassificationData", "DataError", "DataWarning", "Sample", "fingerprint", "load_classification"]


def load_classification(
    path: str | Path, *, val_fraction: float = 0.2, seed: int = 0, classes: Sequence[str] | None = None
) -> ClassificationData:
    """Find the images of a classification task, their classes and their splits; no image is opened.

    A folder may hold train, val (valid, validation) and test folders with class folders inside, or class folders
    alone; a CSV file has the columns path, label and, if wanted, split. Class folders may be nested to any depth;
    hidden files are passed over, files without an image's extension are counted in `ignored`. Where there is no
    validation part, one is taken from the training part, class by class, decided by the seed and the names alone.

    Args:
        path: the folder or the CSV file.
        val_fraction: the share of every class taken for validation, 0 (none) to below 1; every class of two samples
            or more keeps at least one on both sides.
        seed: decides which samples are taken for validation.
        classes: class names in the order of the labels, for instance a trained model's; None takes those of the
            training part, sorted. With classes given, a training part is not needed.

    Raises:
        FileNotFoundError: the path does not exist.
        DataError: a layout that is not allowed, an empty training class, fewer than two classes, a class in val or
            test that train lacks, a folder that cannot be read, or a faulty CSV file.

    Warns:
        DataWarning: files ignored, classes without images in val or test, classes too small to split.
    """
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
        raise GcnetError(f"val_fraction={val_fraction!r}; allowed is 0 (no validation part) to below 1")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; data must be a folder or a CSV file")
    listing = list_folder(path) if path.is_dir() else _list_file(path)
    if "" in listing.splits:
        listing.splits["train"] = listing.splits.pop("")
    names = _train_classes(path, listing) if classes is None else _given_classes(classes)
    for split in ("train", "val", "test"):
        _check_split(path, listing, split, names, given=classes is not None)
    if not any(files for found in listing.splits.values() for files in found.values()):
        raise DataError(f"{path} holds no image; image extensions are {' '.join(sorted(EXTENSIONS))}")
    if val_fraction > 0 and "val" not in listing.splits and "train" in listing.splits:
        _take_validation(path, listing, val_fraction, seed)
    if listing.ignored:
        count = ", ".join(f"{extension}: {number}" for extension, number in sorted(listing.ignored.items()))
        listing.warnings.append(f"{path}: {sum(listing.ignored.values())} files that are no images ignored ({count})")
    for message in listing.warnings:
        warnings.warn(message, DataWarning, stacklevel=2)
    parts = {split: _samples(listing.splits.get(split, {}), names) for split in ("train", "val", "test")}
    return ClassificationData(listing.root, names, **parts, ignored=dict(listing.ignored))


def _list_file(path: Path) -> Listing:
    if path.suffix.lower() != ".csv":
        raise DataError(f"{path} is neither a folder nor a .csv file.\n{LAYOUTS}")
    return list_csv(path)


def _train_classes(path: Path, listing: Listing) -> tuple[str, ...]:
    if "train" not in listing.splits:
        raise DataError(f"{path} has {' and '.join(sorted(listing.splits))} but no train part.\n{LAYOUTS}")
    train = listing.splits["train"]
    names = tuple(sorted(train))
    empty = [name for name in names if not train[name]]
    if len(names) == 1:
        inner = path / names[0]
        deeper = inner.is_dir() and any((inner / split).is_dir() for split in ("train", "val", "test"))
        hint = f"; did you mean {inner}?" if deeper else ""
        raise DataError(f"{path} has one class only, {names[0]!r}; training needs at least two{hint}\n{LAYOUTS}")
    if empty:
        ignored = f" ({sum(listing.ignored.values())} files of other kinds ignored)" if listing.ignored else ""
        raise DataError(
            f"{path}: class folders without any image in train: {shorten(empty)}{ignored}; fill or remove them "
            f"(image extensions are {' '.join(sorted(EXTENSIONS))})"
        )
    return names


def _given_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if isinstance(classes, str) or not names or len(set(names)) < len(names):
        raise GcnetError(f"classes={classes!r}; they must be a sequence of different names")
    return names


def _check_split(path: Path, listing: Listing, split: str, names: tuple[str, ...], *, given: bool) -> None:
    if split not in listing.splits:
        return
    found = listing.splits[split]
    unknown = sorted(set(found) - set(names))
    absent = [name for name in names if not found.get(name)]
    if unknown:
        whose = "are not among the given ones" if given else "train lacks"
        lacking = f"; {split} has no images of {shorten(absent)}" if absent else ""
        raise DataError(f"{path}: {split} has classes that {whose}: {shorten(unknown)}{lacking}")
    if absent:
        listing.warnings.append(f"{path}: no images in {split} of {shorten(absent)}")


def _take_validation(path: Path, listing: Listing, fraction: float, seed: int) -> None:
    train, val, single = listing.splits["train"], {}, []
    for name, files in train.items():
        files = sorted(files, key=lambda file: file.as_posix())
        count = min(max(1, round(len(files) * fraction)), len(files) - 1)
        if count < 1:
            if files:
                single.append(name)
            continue
        # one generator per class: a class added or removed leaves the split of the others as it was
        val[name] = random.Random(f"{seed}/{name}").sample(files, count)
        taken = set(val[name])
        train[name] = [file for file in files if file not in taken]
    if single:
        listing.warnings.append(f"{path}: too few images for a validation part (one only) of {shorten(single)}")
    if val:
        listing.splits["val"] = val


def _samples(found: dict[str, list[Path]], names: tuple[str, ...]) -> tuple[Sample, ...]:
    return tuple(Sample(file, label) for label, name in enumerate(names) for file in sorted(found.get(name, [])))
