"""What a file is before it is opened, told by its bytes and never by its suffix; other things are refused by name."""

from __future__ import annotations

import hashlib
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Literal

from gcnet.errors import CheckpointError

Kind = Literal["safetensors", "pickle"]
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format itself
_ZIP = b"PK\x03\x04"
_PICKLES = (_ZIP, b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_HASH = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|ckpt|safetensors)$")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_RATIO, _SMALL = 20, 1 << 20


def check_file(path: Path, *, strict: bool = False) -> Kind:
    """ "safetensors" or "pickle" (a file of torch.save), if that is what it is.

    Args:
        path: The file.
        strict: A hash in the name that is not the file's is an error, not a warning.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is something else; the message says what.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name the file of weights in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_ZIP):
        _check_zip(path)
    if start.startswith(_PICKLES):
        kind: Kind = "pickle"
    elif len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER:
        kind = "safetensors"
    else:
        raise CheckpointError(f"{path} {_what_else(start)}")
    _check_hash(path, strict)
    return kind


def _what_else(start: bytes) -> str:
    """In words, what begins like this and what to do about it."""
    text = start.lstrip().lower()
    if not start:
        return "is empty: the download or the disk failed; get it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page saved under this name, not a file of weights; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; run `git lfs pull`"
    if text.startswith((b"{", b"[")):
        return "is JSON, perhaps the error message of a server, not a file of weights; download it again"
    if not start[:64].strip(b"\0"):
        return "begins with zeros: the download or the copy failed; get it again"
    return "is neither a safetensors file nor one written by torch.save"


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError):
        raise CheckpointError(
            f"{path} is truncated or damaged: it begins like a file of torch.save, but the table at its end is missing "
            f"({size:,} bytes are there); download it again"
        ) from None
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(_SMALL, _RATIO * size):
        raise CheckpointError(
            f"{path} is refused: its {size:,} bytes unpack to {unpacked:,}; torch.save does not compress, so this is "
            "no checkpoint but a zip bomb, made to fill the memory"
        )
    names = [entry.filename.rpartition("/")[2] for entry in entries]
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript program, not a file of weights; save the state_dict of its model"
        )
    if "data.pkl" not in names:
        raise CheckpointError(
            f"{path} is a zip archive of other files ({', '.join(names[:3])}), not one of torch.save; unpack it"
        )


def _check_hash(path: Path, strict: bool) -> None:
    match = _HASH.search(path.name)
    if match is None or _DATE.fullmatch(match[1]):
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(match[1]):
        message = (
            f"{path} is not the file that its name promises: its SHA-256 begins with {found[: len(match[1])]}, the "
            f"name says {match[1]}; it was changed or damaged, download it again"
        )
        if strict:
            raise CheckpointError(message)
        warnings.warn(message, UserWarning, stacklevel=5)
