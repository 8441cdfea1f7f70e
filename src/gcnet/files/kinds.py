"""What a file is before it is opened: the usual things that are not the weights they are called, told apart."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from pathlib import Path

from gcnet.errors import CheckpointError, WeightsError
from gcnet.files.tensors import Kind, kind_of, reason_for

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
    try:
        kind = kind_of(path)
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
    if kind == "unknown":
        raise CheckpointError(_unknown(path))
    if kind not in ("safetensors", "pickle"):
        raise CheckpointError(reason_for(path, kind))
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            _check_zip(path)
    _check_hash(path, strict)
    return kind


def _unknown(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull`"
    if start.lstrip()[:1] in (b"{", b"["):
        return f"{path} is JSON, perhaps the error message of a server, not a file of weights; download it again"
    if not start.strip(b"\0"):
        return f"{path} begins with zeros: the download or the copy failed; get it again"
    return reason_for(path, "unknown")


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError):
        raise CheckpointError(
            f"{path} is truncated: it begins like a file of torch.save, but the table at its end is missing "
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
        warnings.warn(message, UserWarning, stacklevel=4)
