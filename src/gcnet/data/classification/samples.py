"""What a labelled set of images is: samples, classes, splits; its errors, its warnings, its fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gcnet.errors import DataWarning as DataWarning

LAYOUTS = """Allowed layouts:
  DIR/train/CLASS/IMAGE   beside train also val (or valid, validation) and test; without val a part of train is taken
  DIR/CLASS/IMAGE         no splits: a validation part is taken from every class
  FILE.csv                header path,label or path,label,split; paths relative to the file's folder"""


class Sample(NamedTuple):
    """One image file and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class ClassificationData:
    """Images with one class each, in up to three splits; samples are ordered by class, then path.

    Args:
        root: the folder (of the CSV file) that paths are relative to.
        classes: class names; a label is an index into them.
        train: may be empty only where the classes were given from outside.
        val: empty if `val_fraction=0` and the data has no validation part.
        test: empty if the data has no test part.
        ignored: how many files were left out for their extension, by extension.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)


def fingerprint(data: ClassificationData) -> str:
    """Sha256 over the split, relative path, size in bytes and class name of every sample, and the class order.

    The same files elsewhere give the same fingerprint; a file added, removed, renamed, moved to another class or
    split, or changed in size gives another. The pixels are not read.
    """
    lines = [f"classes\t{list(data.classes)!r}"]
    for split, samples in (("train", data.train), ("val", data.val), ("test", data.test)):
        for path, label in samples:
            try:
                size = str(path.stat().st_size)
            except OSError:  # it will be skipped, and named, when it is read
                size = "unreadable"
            relative = Path(os.path.relpath(path, data.root)).as_posix()
            lines.append(f"{split}\t{relative}\t{size}\t{data.classes[label]}")
    text = "\n".join([lines[0], *sorted(lines[1:])])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def shorten(names, limit: int = 5) -> str:
    """The first few of the names, quoted, and how many more there are.

    Example:
        >>> shorten(["a", "b", "c"], limit=2)
        "'a', 'b' and 1 more"
    """
    names = [str(name) for name in names]
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
