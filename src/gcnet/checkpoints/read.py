"""Reading format 1: build the model that the header names, replay its rewrites, fill it. Nothing is ever unpickled."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.checkpoints.errors import CheckpointError
from gcnet.checkpoints.write import FORMAT
from gcnet.models import create_model
from gcnet.models.create import example_input
from gcnet.models.files import WeightsError, kind_of, read_safetensors, reason_for
from gcnet.models.weights import problems
from gcnet.rewrites import accelerate, insert, record
from gcnet.rewrites.fold import fold_unchecked
from gcnet.rewrites.simplify import simplify_structure


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: the model is built, filled and in eval mode.

    `architecture` holds name, num_classes, options, rewrites, and under `assumed` what the file did not say.
    """

    model: nn.Module
    architecture: dict[str, Any]
    source: str
    classes: list[str] | None
    preprocessing: dict[str, Any] | None


def load_checkpoint(path: str | Path, *, architecture: nn.Module | None = None) -> Checkpoint:
    """Open a file of `save_checkpoint`.

    Args:
        path: the safetensors file.
        architecture: the model, for a file whose model `create_model` did not build. It is copied; if it is plain, the
            rewrites on record are replayed on the copy.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is something else, damaged, too new, or does not fit its own architecture.
    """
    path = Path(path)
    tensors, header = _read(path)
    model = _plain_model(path, header, architecture)
    for rewrite in header["rewrites"][len(record.rewrites(model)) :]:
        model = _replay(path, model, rewrite)
    _fill(path, model, tensors)
    if header["classes"] is not None:
        record.set_classes(model, header["classes"])
    if header["preprocessing"] is not None:
        record.set_preprocessing(model, header["preprocessing"])
    described = header["model"] or {"name": type(model).__name__, "num_classes": None, "options": {}}
    return Checkpoint(
        model=model.eval(),
        architecture=described | {"rewrites": header["rewrites"], "assumed": []},
        source=f"gcnet format {FORMAT}",
        classes=header["classes"],
        preprocessing=header["preprocessing"],
    )


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        kind = kind_of(path)
        if kind != "safetensors":
            raise CheckpointError(
                f"not a gcnet checkpoint: {reason_for(path, kind)}"
                + ("; its weights can fill a model through create_model(..., weights=FILE)" if kind == "pickle" else "")
            )
        tensors, metadata = read_safetensors(path)
    except WeightsError as error:
        raise CheckpointError(f"not a gcnet checkpoint: {error}") from None
    if "gcnet" not in metadata:
        raise CheckpointError(
            f"not a gcnet checkpoint: {path} holds {len(tensors)} tensors but not the header that "
            "gcnet.save_checkpoint writes; its weights can fill a model through create_model(..., weights=FILE)"
        )
    return tensors, _checked_header(path, metadata["gcnet"])


def _checked_header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise CheckpointError(f"{path}: its gcnet header is damaged (no JSON with a format number)")
    if header["format"] != FORMAT:
        newer = header["format"] > FORMAT
        raise CheckpointError(
            f"{path} is of format {header['format']}, this gcnet reads format {FORMAT}"
            + (": it was written by a newer gcnet, `pip install -U gcnet` reads it" if newer else "")
        )
    expected = {"model": (dict, None), "rewrites": (list,), "classes": (list, None), "preprocessing": (dict, None)}
    for key, kinds in expected.items():
        if key not in header or not any(
            header[key] is None if k is None else isinstance(header[key], k) for k in kinds
        ):
            raise CheckpointError(f"{path}: its gcnet header is damaged (entry {key!r} is missing or of a wrong kind)")
    return header


def _plain_model(path: Path, header: Mapping[str, Any], architecture: nn.Module | None) -> nn.Module:
    if architecture is not None:
        already = record.rewrites(architecture)
        if already and already != header["rewrites"]:
            raise CheckpointError(
                f"architecture: pass the plain model, or one with the rewrites on record in {path}; this one has "
                f"{already!r}, the file {header['rewrites']!r}"
            )
        return copy.deepcopy(architecture)
    recorded = header["model"]
    if recorded is None:
        raise CheckpointError(
            f"{path} does not say how its model is built, since create_model did not make it; "
            "pass the plain model: load_checkpoint(path, architecture=model)"
        )
    try:
        options = {key: value for key, value in recorded.items() if key not in ("name", "num_classes", "options")}
        return create_model(
            recorded["name"], num_classes=recorded["num_classes"], **options, **recorded.get("options", {})
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its model {recorded!r} cannot be built here ({error})") from error


def _replay(path: Path, model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    replay = _REPLAYS.get(str(rewrite.get("rewrite"))) if isinstance(rewrite, dict) else None
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


def _insert(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    places = {key: rewrite.get(key) for key in ("stages", "at", "where", "position")}
    example = example_input(model) if places["at"] is not None and record.architecture(model) is not None else None
    return insert(model, rewrite["block"], example=example, **places, **rewrite.get("options", {}))


def _fold(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Only the structure: outputs at random weights say nothing about those of the file."""
    example = example_input(model) if record.architecture(model) is not None else None
    return fold_unchecked(model.eval(), example)


def _accelerate(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    return accelerate(model)


_REPLAYS: dict[str, Callable[[nn.Module, Mapping[str, Any]], nn.Module]] = {
    "insert": _insert,
    "fold": _fold,
    "accelerate": _accelerate,
    "simplify": simplify_structure,
}


def _fill(path: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    own = model.state_dict()
    report = problems(
        missing=own.keys() - tensors.keys(),
        unknown=tensors.keys() - own.keys(),
        shapes=[
            f"{key} {list(tensors[key].shape)} (the model's: {list(own[key].shape)})"
            for key in own.keys() & tensors.keys()
            if own[key].shape != tensors[key].shape
        ],
    )
    if report:
        raise CheckpointError(f"{path} does not fit its own architecture: {report}")
    model.load_state_dict(dict(tensors), assign=True)  # assigned, not copied: half-precision weights stay so
