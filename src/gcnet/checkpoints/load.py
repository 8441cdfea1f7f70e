"""`load_checkpoint`: files of `save_checkpoint` and of other programs become models."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gcnet.checkpoints import adapters, own
from gcnet.checkpoints.content import Built, Content, content_of, fill
from gcnet.checkpoints.save import KEY
from gcnet.errors import CheckpointError
from gcnet.files.tensors import plain_names, read
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
        built = own.build(path, stored.content, stored.header[KEY], architecture)
    else:
        content = content_of(path, stored.content)
        built = _given(path, content, architecture) if architecture is not None else _recognised(path, content)
    if built.classes is not None:
        record.set_classes(built.model, built.classes)
    return Checkpoint(
        model=built.model.eval(),
        architecture=_described(built.model) | {"assumed": built.assumed},
        source=built.source,
        classes=built.classes,
        preprocessing=record.preprocessing(built.model),
    )


def _recognised(path: Path, content: Content) -> Built:
    built = adapters.build(path, replace(content, tensors=plain_names(content.tensors)))
    return replace(built, assumed=[*content.assumed, *built.assumed])


def _given(path: Path, content: Content, architecture: nn.Module) -> Built:
    """A copy of the user's model with the tensors of the file; what a wrapper put before names is left out."""
    model = copy.deepcopy(architecture)
    as_stored = content.tensors.keys() <= model.state_dict().keys()
    try:
        fill(model, content.tensors if as_stored else plain_names(content.tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not fit the model that was given: {error}") from None
    return Built(model, "tensors alone", content.classes, content.assumed)


def _described(model: nn.Module) -> dict[str, Any]:
    """What `Checkpoint.architecture` says of a model; its options stand beside its name too, for short."""
    built = record.architecture(model) or {"name": type(model).__name__, "num_classes": None, "options": {}}
    return built["options"] | built | {"rewrites": record.rewrites(model)}
