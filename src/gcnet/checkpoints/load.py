"""`load_checkpoint`: our format 1 (build the model on record, replay its rewrites, fill it) and files of others."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.checkpoints.published import Content, Published, build_published, content_of, fill
from gcnet.checkpoints.save import FORMAT
from gcnet.errors import CheckpointError
from gcnet.files.tensors import read
from gcnet.models import create_model
from gcnet.models.weights import misfits
from gcnet.rewrites.table import REPLAYS
from gcnet.surgery import record


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: the model is built, filled and in eval mode.

    `architecture` holds the name, the number of classes, the options and rewrites of the model, and under `assumed` a
    line for each thing that the file did not say.
    """

    model: nn.Module
    architecture: dict[str, Any]
    source: str
    classes: list[str] | None
    preprocessing: dict[str, Any] | None


def load_checkpoint(path: str | Path, *, architecture: nn.Module | None = None, strict: bool = False) -> Checkpoint:
    """Open a checkpoint: of `save_checkpoint`, of mmdetection 1 to 3, of torchvision or of timm. It runs no code.

    What an architecture of another program is, is read from names and shapes of the tensors, and from the config in the
    file, taken as data; what neither tells is listed in `Checkpoint.architecture["assumed"]`.

    Args:
        path: a safetensors file, or one of torch.save.
        architecture: the model, for a file whose model gcnet cannot tell. It is copied and filled; if the file is one
            of `save_checkpoint` and the model is plain, the rewrites on record are replayed on the copy.
        strict: a hash in the file's name that is not the file's is an error, not a warning.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is something else, damaged, too new, refused since it could run code, of no known
            architecture, or has tensors that do not fit it (all of them are counted).
    """
    path = Path(path)
    content, header = read(path, strict=strict)
    if "gcnet" not in header:
        return _published(path, content_of(path, content), architecture)
    return _own(path, content, _checked_header(path, header["gcnet"]), architecture)


def _own(
    path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], architecture: nn.Module | None
) -> Checkpoint:
    model = _plain_model(path, header, architecture)
    for rewrite in header["rewrites"][len(record.rewrites(model)) :]:
        model = _replay(path, model, rewrite)
    _fill(path, model, tensors)
    if header["classes"] is not None:
        record.set_classes(model, header["classes"])
    if header["preprocessing"] is not None:
        record.set_preprocessing(model, header["preprocessing"])
    return Checkpoint(
        model=model.eval(),
        architecture=described(model) | {"assumed": []},
        source=f"gcnet format {FORMAT}",
        classes=header["classes"],
        preprocessing=header["preprocessing"],
    )


def _published(path: Path, content: Content, architecture: nn.Module | None) -> Checkpoint:
    if architecture is None:
        found = build_published(path, content)
    else:
        model = copy.deepcopy(architecture)
        try:
            fill(model, content.tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{path} does not fit the model that was given: {error}") from None
        found = Published(model, [], "tensors alone", content.classes)
    if found.classes is not None:
        record.set_classes(found.model, found.classes)
    return Checkpoint(
        model=found.model.eval(),
        architecture=described(found.model) | {"assumed": found.assumed},
        source=found.source,
        classes=found.classes,
        preprocessing=record.preprocessing(found.model),
    )


def described(model: nn.Module) -> dict[str, Any]:
    """What `Checkpoint.architecture` says of a model; its options stand beside its name too, for short."""
    built = record.architecture(model) or {"name": type(model).__name__, "num_classes": None, "options": {}}
    return built["options"] | built | {"rewrites": record.rewrites(model)}


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


def _fill(path: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    report = misfits(model.state_dict(), tensors)
    if report:
        raise CheckpointError(f"{path} does not fit its own architecture: {report}")
    model.load_state_dict(dict(tensors), assign=True)  # assigned, not copied: half-precision weights stay so
