"""Which files a folder of images holds: class folders, with or without split folders above them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gcnet.data.classification.samples import LAYOUTS, shorten
from gcnet.data.images import EXTENSIONS
from gcnet.errors import DataError

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SYSTEM = frozenset(("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"))


@dataclass
class Listing:
    """Files by split and class name; split "" means that the data has none."""

    root: Path
    splits: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def class_name(text: str) -> str:
    """The name as one Unicode form: macOS stores accents apart, other systems do not."""
    return unicodedata.normalize("NFC", text)


def list_folder(root: Path) -> Listing:
    """List the images of a folder in one of the two folder layouts; hidden files and folders are passed over.

    Raises:
        DataError: neither layout, or a folder that cannot be read.
    """
    listing = Listing(root)
    folders, files = _scan(root)
    if not folders:
        images = sum(file.suffix.lower() in EXTENSIONS for file in files)
        found = f"{images} images and no class folder" if images else "no class folder"
        raise DataError(f"{root} holds {found}.\n{LAYOUTS}")
    by_split = _split_folders(root, folders)
    if not by_split:
        listing.splits[""] = _classes(root, folders, files, listing)
        return listing
    others = [folder.name for folder in folders if folder not in by_split.values()]
    if others:
        listing.warnings.append(f"{root}: {shorten(others)} ignored beside the split folders")
    for split, folder in by_split.items():
        inner, loose = _scan(folder)
        if not inner:
            raise DataError(f"{folder} holds no class folder.\n{LAYOUTS}")
        listing.splits[split] = _classes(folder, inner, loose, listing)
    return listing


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    by_split: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            continue
        if split in by_split:
            raise DataError(f"{root} holds {by_split[split].name!r} and {folder.name!r}: two {split} splits; keep one")
        by_split[split] = folder
    if len(by_split) < len(folders) and not any(_scan(folder)[0] for folder in by_split.values()):
        return {}  # a class may be called "train", beside "bus" and "tram"
    return by_split


def _classes(parent: Path, folders: list[Path], loose: list[Path], listing: Listing) -> dict[str, list[Path]]:
    outside = sum(file.suffix.lower() in EXTENSIONS for file in loose)
    if outside:
        listing.warnings.append(f"{parent}: {outside} images outside any class folder ignored")
    found: dict[str, list[Path]] = {}
    for folder in folders:
        images = found.setdefault(class_name(folder.name), [])
        for file in _files(folder, frozenset()):
            if file.suffix.lower() in EXTENSIONS:
                images.append(file)
            else:
                listing.ignored[file.suffix.lower() or "(no extension)"] += 1
    return found


def _files(folder: Path, above: frozenset[str]) -> list[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder above would never end
        return []
    folders, files = _scan(folder)
    return files + [file for inner in folders for file in _files(inner, above | {real})]


def _scan(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files directly inside, by name, without hidden ones and what operating systems leave."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _SYSTEM:
                    continue
                (folders if entry.is_dir() else files).append(folder / entry.name)
    except PermissionError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or 'permission denied'}") from error
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error}") from error
    return sorted(folders), sorted(files)
