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

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "train_set", "training_set", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validating", "val_set", "validation_set", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "test_set", "testing_set", "testset"), "test"),
}
_SYSTEM = frozenset(("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that no command looks at: hidden, or left there by an operating system."""
    return name.startswith(".") or name in _SYSTEM


@dataclass
class Listing:
    """Files by split and class name; split "" means that the data has none."""

    root: Path
    splits: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def scan(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the files directly inside, by name, without hidden ones and links that lead out of the root.

        The last are noted in `outside`.
        """
        root = os.path.realpath(self.root)
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_symlink() and not os.path.realpath(entry.path).startswith(root + os.sep):
                        self.outside.append(entry.name)
                        continue
                    (folders if entry.is_dir() else files).append(folder / entry.name)
        except PermissionError as error:
            raise DataError(f"cannot read the folder {folder}: {error.strerror or 'permission denied'}") from error
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {error}") from error
        return sorted(folders), sorted(files)

    def below(self, folder: Path, above: frozenset[str] = frozenset()) -> list[Path]:
        """All files in a folder and those below, as `scan` finds them."""
        real = os.path.realpath(folder)
        if real in above:  # a link to a folder above would never end
            return []
        folders, files = self.scan(folder)
        return files + [file for inner in folders for file in self.below(inner, above | {real})]


def images_in(folder: Path) -> list[Path]:
    """All images in a folder and those below, sorted: what every command that is given a folder works on."""
    return sorted(file for file in Listing(folder).below(folder) if file.suffix.lower() in EXTENSIONS)


def class_name(text: str) -> str:
    """The name as one Unicode form: macOS stores accents apart, other systems do not."""
    return unicodedata.normalize("NFC", text)


def list_folder(root: Path) -> Listing:
    """List the images of a folder in one of the two folder layouts; hidden files and folders are passed over.

    Raises:
        DataError: neither layout, or a folder that cannot be read.
    """
    listing = Listing(root)
    folders, files = listing.scan(root)
    if not folders:
        images = sum(file.suffix.lower() in EXTENSIONS for file in files)
        found = f"{images} images and no class folder" if images else "no class folder"
        if listing.outside:
            found += f" ({shorten(listing.outside, 3)}: links that lead out of it, which are not followed)"
        raise DataError(f"{root} holds {found}.\n{LAYOUTS}")
    by_split = _split_folders(root, folders, listing)
    if not by_split:
        listing.splits[""] = _classes(root, folders, files, listing)
        _warn_of_parts(root, folders, listing)
        return _without_links_out(listing)
    others = [folder.name for folder in folders if folder not in by_split.values()]
    if others:
        listing.warnings.append(f"{root}: {shorten(others)} ignored beside the split folders")
    for split, folder in by_split.items():
        inner, loose = listing.scan(folder)
        if not inner:
            raise DataError(f"{folder} holds no class folder.\n{LAYOUTS}")
        listing.splits[split] = _classes(folder, inner, loose, listing)
    return _without_links_out(listing)


def _without_links_out(listing: Listing) -> Listing:
    if listing.outside:
        listing.warnings.append(
            f"{listing.root}: {len(set(listing.outside))} links lead out of it and are not followed "
            f"({shorten(sorted(set(listing.outside)), 3)})"
        )
    return listing


def _warn_of_parts(root: Path, folders: list[Path], listing: Listing) -> None:
    """Folders that hold the same folders are rather parts of the data (first, second) than classes."""
    inner = [frozenset(class_name(folder.name) for folder in Listing(root).scan(folder)[0]) for folder in folders]
    if len(folders) > 1 and len(inner[0]) > 1 and len(set(inner)) == 1:
        listing.warnings.append(
            f"{root}: the folders {shorten([folder.name for folder in folders])} are taken for classes, though each "
            f"holds the same folders ({shorten(sorted(inner[0]))}); parts of the data are called train, val and test"
        )


def _split_folders(root: Path, folders: list[Path], listing: Listing) -> dict[str, Path]:
    by_split: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            continue
        if split in by_split:
            raise DataError(f"{root} holds {by_split[split].name!r} and {folder.name!r}: two {split} splits; keep one")
        by_split[split] = folder
    if len(by_split) < len(folders) and not any(listing.scan(folder)[0] for folder in by_split.values()):
        return {}  # a class may be called "train", beside "bus" and "tram"
    return by_split


def _classes(parent: Path, folders: list[Path], loose: list[Path], listing: Listing) -> dict[str, list[Path]]:
    outside = sum(file.suffix.lower() in EXTENSIONS for file in loose)
    if outside:
        listing.warnings.append(f"{parent}: {outside} images outside any class folder ignored")
    found: dict[str, list[Path]] = {}
    for folder in folders:
        images = found.setdefault(class_name(folder.name), [])
        for file in listing.below(folder):
            if file.suffix.lower() in EXTENSIONS:
                images.append(file)
            else:
                listing.ignored[file.suffix.lower() or "(no extension)"] += 1
    return found
