"""`load_checkpoint`: files of `save_checkpoint` and of other programs become models."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gcnet.checkpoints import own
from gcnet.checkpoints.adapters import ADAPTERS
from gcnet.checkpoints.content import Built, content_of
from gcnet.checkpoints.save import KEY
from gcnet.errors import CheckpointError, some
from gcnet.files.tensors import Stored, read
from gcnet.models.weights import assign
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
    stored = read(path, strict=strict)
    if KEY in stored.header:
        built = own.build(path, stored.tensors, stored.header[KEY], architecture)
    else:
        built = _given(path, stored, architecture) if architecture is not None else _recognised(path, stored)
    if built.classes is not None:
        record.set_classes(built.model, built.classes)
    return Checkpoint(
        model=built.model.eval(),
        architecture=_described(built.model) | {"assumed": built.assumed},
        source=built.source,
        classes=built.classes,
        preprocessing=record.preprocessing(built.model),
    )


def _recognised(path: Path, stored: Stored) -> Built:
    """The model of a file of another program, by the first adapter that fits."""
    shapes = {key: tuple(value.shape) for key, value in stored.plain.items()}
    adapter = next((adapter for adapter in ADAPTERS if adapter.fits(shapes)), None)
    if adapter is None:
        raise CheckpointError(
            f"{path}: its {len(shapes)} tensors are those of no model that gcnet recognises: "
            f"{', '.join(one.source for one in ADAPTERS)}. They begin with {some(shapes, 4)}. For another model: "
            "load_checkpoint(path, architecture=model)"
        )
    content = content_of(stored)
    try:
        built = adapter.build(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return replace(built, assumed=[*content.assumed, *built.assumed])


def _given(path: Path, stored: Stored, architecture: nn.Module) -> Built:
    """A copy of the user's model with the tensors of the file; what a wrapper put before names is left out."""
    model, content = copy.deepcopy(architecture), content_of(stored)
    as_stored = stored.tensors.keys() <= model.state_dict().keys()
    report = assign(model, stored.tensors if as_stored else stored.plain)
    if report:
        raise CheckpointError(f"{path} does not fit the model that was given: {report}")
    return Built(model, "tensors alone", content.classes, content.assumed)


def _described(model: nn.Module) -> dict[str, Any]:
    """What `Checkpoint.architecture` says of a model; its options stand beside its name too, for short."""
    built = record.architecture(model) or {"name": type(model).__name__, "num_classes": None, "options": {}}
    return built["options"] | built | {"rewrites": record.rewrites(model)}
