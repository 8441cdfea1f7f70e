"""Writing format 1: the tensors of a state_dict, and under `gcnet` in the header the JSON that rebuilds the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from gcnet.errors import CheckpointError
from gcnet.files.atomic import write_atomically
from gcnet.surgery import record
from gcnet.version import versions

FORMAT = 1
KEY = "gcnet"  # of the entry in the text header of safetensors


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write weights, architecture, rewrites, classes and preprocessing of `model` into one safetensors file.

    The file is there whole or not at all.

    A model that `create_model` did not build has no architecture on record: its file is opened with
    `load_checkpoint(path, architecture=the_plain_model)`.

    Raises:
        CheckpointError: a record on the model that JSON cannot hold.
        OSError: the disk is full or the folder not writable; an older file at `path` is kept.
    """
    built = record.architecture(model)
    header = {
        "format": FORMAT,
        "model": None if built is None else {key: built[key] for key in ("name", "num_classes", "options")},
        "rewrites": record.rewrites(model),
        "classes": record.classes(model),
        "preprocessing": record.preprocessing(model),
        "versions": versions(),
    }
    try:
        text = json.dumps(header)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the records on this model cannot be written as JSON ({error})") from None
    content = save(_plain_tensors(model), metadata={"format": "pt", KEY: text})
    write_atomically(Path(path), lambda file: file.write(content))


def _plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Contiguous tensors on the CPU with storage of their own, as the format asks."""
    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for key, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        tensors[key] = tensor if whole and pointer not in storages else tensor.clone()
        storages.add(pointer)
    return tensors
