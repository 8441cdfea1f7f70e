"""Reading a file of tensors without trusting it: what kind it is, and its tensors, never unpickling anything else."""

from __future__ import annotations

import errno
import json
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from gcnet.errors import WeightsError

Kind = Literal["safetensors", "pickle", "html", "empty", "unknown"]
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format itself


def kind_of(path: Path) -> Kind:
    """What the first bytes say; a missing file is FileNotFoundError."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name the file of weights in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "pickle"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "html"
    if len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER:
        return "safetensors"
    return "unknown"


def reason_for(path: Path, kind: Kind) -> str:
    """Why a file of this kind holds no tensors we read."""
    return {
        "html": f"{path} is a web page saved under this name, not a file of weights; download the file itself",
        "empty": f"{path} is empty: the download or the disk failed; get it again",
        "unknown": f"{path} is neither a safetensors file nor one written by torch.save",
        "pickle": f"{path} was written by torch.save (a pickle)",
        "safetensors": f"{path} is a safetensors file",
    }[kind]


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the text header of a safetensors file.

    The tensors are copies: where they lie in the file, at odd addresses, some processors take other instructions for
    them, whose sums are rounded differently.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged ({path.stat().st_size} bytes; {error}); copy or download it again"
        ) from None


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The state_dict in a safetensors file or in one of torch.save, read with `weights_only=True`."""
    path = Path(path)
    kind = kind_of(path)
    if kind == "safetensors":
        return read_safetensors(path)[0]
    if kind != "pickle":
        raise WeightsError(reason_for(path, kind))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path} holds more than tensors and is not opened, since that could run code in it ({first}); "
            "save its state_dict alone"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:  # torch answers a cut zip file with EINVAL
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else "it ends too early"
        raise WeightsError(f"{path} is truncated or damaged ({first}); copy or download it again") from None
    return _state_dict_in(path, content)


def _state_dict_in(path: Path, content: object) -> dict[str, torch.Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise WeightsError(f"{path} holds no state_dict: expected a table of named tensors")
    state = {str(key): value for key, value in content.items()}
    for prefix in ("module.", "model."):  # DistributedDataParallel's, a LightningModule's
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
