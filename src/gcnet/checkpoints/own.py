"""Files of `save_checkpoint`: build the model on record, replay its rewrites, fill it. Nothing else is opened.

| format | what the header says under `model` |
|---|---|
| 1 | name, num_classes, options; or, of detectors saved before schema 2 of the record, the options beside the name |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gcnet.checkpoints.content import Built
from gcnet.checkpoints.save import FORMAT
from gcnet.errors import CheckpointError
from gcnet.models.create import plain_model, sketch
from gcnet.models.weights import assign, counters, misfits
from gcnet.rewrites.table import REPLAYS
from gcnet.surgery import record

_ENTRIES: dict[str, tuple[type | None, ...]] = {
    "model": (dict, None),
    "rewrites": (list,),
    "classes": (list, None),
    "preprocessing": (dict, None),
}


def build(path: Path, tensors: Mapping[str, Tensor], text: str, architecture: nn.Module | None) -> Built:
    """The model that a header (JSON) describes, or a copy of `architecture`, with the tensors in it.

    Raises:
        CheckpointError: a header that is damaged, too new or describes no model that can be built here; tensors that do
            not fit; an architecture with other rewrites.
    """
    header = _header(path, text)
    if architecture is None:
        model = _recorded(path, header["model"], tensors)
    else:
        model = _copied(path, header, architecture)
    for rewrite in header["rewrites"][len(record.rewrites(model)) :]:
        model = _replayed(path, model, rewrite)
    _refuse(path, assign(model, tensors))
    if header["preprocessing"] is not None:
        record.set_preprocessing(model, header["preprocessing"])
    return Built(model, f"gcnet format {FORMAT}", header["classes"])


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise CheckpointError(f"{path}: its gcnet header is damaged (no JSON with a format number)")
    if header["format"] != FORMAT:
        newer = header["format"] > FORMAT
        raise CheckpointError(
            f"{path} is of format {header['format']}, this gcnet reads format {FORMAT}"
            + (": it was written by a newer gcnet, `pip install -U gcnet` reads it" if newer else "")
        )
    for key, kinds in _ENTRIES.items():
        fits = [header.get(key) is None if kind is None else isinstance(header.get(key), kind) for kind in kinds]
        if key not in header or not any(fits):
            raise CheckpointError(f"{path}: its gcnet header is damaged (entry {key!r} is missing or of a wrong kind)")
    return header


def _recorded(path: Path, model: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The plain model that a header describes. A header cannot ask for weights: options are the name's own alone."""
    if model is None:
        raise CheckpointError(
            f"{path} does not say how its model is built, since create_model did not make it; "
            "pass the plain model: load_checkpoint(path, architecture=model)"
        )
    beside = {key: value for key, value in model.items() if key not in ("name", "num_classes", "options")}
    try:
        asked = model["name"], model["num_classes"], beside | model.get("options", {})
        plain = sketch(*asked).state_dict()
        if _size(plain) > 10 * _size(tensors):  # no rewrite takes that much away, so nothing that large is built
            _refuse(path, misfits(plain, tensors, optional=counters(plain)))
        return plain_model(*asked)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its model {dict(model)!r} cannot be built here ({error})") from error


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _refuse(path: Path, report: str) -> None:
    if report:
        raise CheckpointError(
            f"{path} does not fit its own architecture: {report}. If its model was changed after it was built, pass a "
            "model with these layers: load_checkpoint(path, architecture=model)"
        )


def _copied(path: Path, header: Mapping[str, Any], architecture: nn.Module) -> nn.Module:
    already = record.rewrites(architecture)
    if already and already != header["rewrites"]:
        raise CheckpointError(
            f"architecture: pass the plain model, or one with the rewrites on record in {path}; this one has "
            f"{already!r}, the file {header['rewrites']!r}"
        )
    return copy.deepcopy(architecture)


def _replayed(path: Path, model: nn.Module, rewrite: Any) -> nn.Module:
    replay = REPLAYS.get(str(rewrite.get("rewrite"))) if isinstance(rewrite, dict) else None
    if replay is None:
        raise CheckpointError(f"{path}: it records a rewrite that this gcnet does not know: {rewrite!r}")
    if rewrite["rewrite"] == "insert" and rewrite.get("block") is None:
        raise CheckpointError(
            f"{path} holds blocks that were given to insert as a callable, not by name; pass the model with these "
            "blocks inserted: load_checkpoint(path, architecture=model)"
        )
    try:
        return replay(model, rewrite)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its rewrite {rewrite!r} cannot be replayed ({error})") from error
