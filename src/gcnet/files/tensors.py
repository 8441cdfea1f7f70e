"""The one door for files of weights: `read` opens what others wrote, whoever asks, and runs nothing that is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gcnet.errors import CheckpointError, some
from gcnet.files.kinds import check_file
from gcnet.files.unpickle import unpickle

# Where programs put the tensors; what DistributedDataParallel, torch.compile and a LightningModule put before names.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: By name, as in the file.
        plain: The same without what wrappers put before all names.
        beside: The object that the tensors lie in, with what else its writer put there; {} where there is none.
        header: The text header of safetensors; {} of other files.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Tensor]
    beside: Mapping[Any, Any]
    header: Mapping[str, str]


def read(path: str | Path, *, strict: bool = False) -> Stored:
    """The content of a safetensors file or of one of torch.save, whatever its name ends in.

    Args:
        path: The file.
        strict: A hash in the name that is not the file's is an error, not a warning.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is something else, damaged, a bomb, holds no table of tensors, or asks for what could run
            code.
    """
    path = Path(path)
    if check_file(path, strict=strict) == "safetensors":
        content, header = _safetensors(path)
    else:
        content, header = unpickle(path), {}
    beside = content if isinstance(content, Mapping) else {}
    tensors = next((beside[key] for key in _WRAPPERS if isinstance(beside.get(key), Mapping)), content)
    if not isinstance(tensors, Mapping) or not (tensors or header):
        raise CheckpointError(f"{path} holds no state_dict: expected a table of named tensors")
    others = [str(key) for key, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path}: {len(others)} entries of its state_dict are no tensors: {some(others, 5)}")
    named = {str(key): value for key, value in tensors.items()}
    return Stored(named, plain_names(named), beside, header)


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without what wrappers put before all of their names, in any order (`module._orig_mod.`)."""
    names = list(tensors)
    while prefix := next((p for p in _PREFIXES if names and all(name.startswith(p) for name in names)), None):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors are copies: where they lie in the file, at odd addresses, some processors take other instructions for
    them, whose sums are rounded differently.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged ({path.stat().st_size} bytes; {error}); copy or download it again"
        ) from None
