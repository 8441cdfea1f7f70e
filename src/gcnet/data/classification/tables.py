"""Which files a CSV file names: columns path, label and, if there is one, split."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from gcnet.data.classification.samples import LAYOUTS, shorten
from gcnet.data.listing import SPLIT_NAMES, Listing, class_name
from gcnet.errors import DataError

COLUMNS = ("path", "label", "split")


def list_csv(file: Path) -> Listing:
    """List the images that a CSV file names; equal rows count once, absolute paths and `..` are allowed.

    Raises:
        DataError: not UTF-8, empty, a column or cell missing, an unknown split, an image that does not exist or that
            appears with two labels or in two splits.
    """
    listing = Listing(file.parent)
    seen: dict[str, tuple[int, str, str]] = {}
    missing: list[str] = []
    repeated = 0
    for line, path, label, split in _rows(file):
        key = os.path.normpath(file.parent / path)
        if key in seen:
            first, *before = seen[key]
            if before != [label, split]:
                kind, old, new = ("label", before[0], label) if before[0] != label else ("split", before[1], split)
                raise DataError(
                    f"{file}: {path!r} has {kind} {old!r} in line {first}, {new!r} in line {line}; keep one"
                )
            repeated += 1
            continue
        seen[key] = (line, label, split)
        if not os.path.isfile(key):
            missing.append(f"{path} (line {line})")
        listing.splits.setdefault(split, {}).setdefault(label, []).append(Path(key))
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(seen)} images do not exist: {shorten(missing, 3)}; "
            f"paths are relative to {file.parent}"
        )
    if not seen:
        raise DataError(f"{file} has a header but no rows")
    if repeated:
        listing.warnings.append(f"{file}: {repeated} repeated rows ignored")
    return listing


def _rows(file: Path) -> list[tuple[int, str, str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines)
            header = [name.strip().lower() for name in next(reader, [])]
            _check_header(file, header)
            places = {name: header.index(name) for name in COLUMNS if name in header}
            return [_row(file, reader.line_num, cells, places) for cells in reader if any(map(str.strip, cells))]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file} is not a readable CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error


def _check_header(file: Path, header: list[str]) -> None:
    if not any(header):
        raise DataError(f"{file} is empty.\n{LAYOUTS}")
    absent = [name for name in ("path", "label") if name not in header]
    if absent:
        hint = "; columns must be separated by commas" if any(mark in header[0] for mark in ";\t|") else ""
        raise DataError(f"{file}: column {' and '.join(absent)} missing; the header is {header}{hint}.\n{LAYOUTS}")
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{file}: column {twice[0]} appears twice in the header {header}")


def _row(file: Path, line: int, cells: list[str], places: dict[str, int]) -> tuple[int, str, str, str]:
    values = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}
    for name, value in values.items():
        if not value:
            raise DataError(f"{file}, line {line}: {name} is empty in {cells}")
    split = ""
    if "split" in values:
        split = SPLIT_NAMES.get(values["split"].lower(), "")
        if not split:
            raise DataError(
                f"{file}, line {line}: split={values['split']!r}; allowed: train, val, test, or such words as training"
            )
    return line, values["path"], class_name(values["label"]), split
