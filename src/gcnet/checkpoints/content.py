"""What passes between a file and the adapter of the program that wrote it, and how a model is filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import CheckpointError
from gcnet.files.tensors import state_dict
from gcnet.models.weights import counters, misfits

Shape = tuple[int, ...]
_AVERAGED = ("state_dict_ema", "model_ema")  # timm's trainer, torchvision's


@dataclass(frozen=True)
class Content:
    """What a file of another program holds: named tensors, what is noted beside them, the names of its classes."""

    tensors: dict[str, Tensor]
    notes: Mapping[str, Any]
    classes: list[str] | None
    assumed: list[str]


@dataclass(frozen=True)
class Built:
    """A model that was built for a file and filled from it.

    Attributes:
        model: With the tensors of the file.
        source: What `Checkpoint.source` says.
        classes: The names of its classes, if they are known.
        assumed: What the file did not tell, a line each.
    """

    model: nn.Module
    source: str
    classes: list[str] | None = None
    assumed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Adapter:
    """How the files of one program become models.

    Attributes:
        source: Whose files these are, in words.
        fits: Whether tensors of such names and shapes are of this program; it sees nothing else and is quick.
        build: Translates names, builds the model, fills it. Raises CheckpointError in words that go on after "FILE: ".
    """

    source: str
    fits: Callable[[Mapping[str, Shape]], bool]
    build: Callable[[Content], Built]


def content_of(path: Path, stored: Any) -> Content:
    """The tensors and the notes in what was stored; names as in the file.

    Raises:
        CheckpointError: there is no table of named tensors in it.
    """
    tensors = state_dict(path, stored)
    beside: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
    notes = table(beside.get("meta"))
    data = table(notes.get("dataset_meta"))
    classes = names_in(data.get("classes", data.get("CLASSES", notes.get("CLASSES"))))
    averaged = [key for key in _AVERAGED if isinstance(beside.get(key), Mapping)]
    assumed = [f"weights: those of the last step; the file also has averaged ones ({key})" for key in averaged]
    return Content(tensors, notes, classes, assumed)


def table(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def names_in(value: Any) -> list[str] | None:
    """The value if it is a list of words, else None."""
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return list(value)
    return None


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of another program into the model; the counters of batch norms may be absent.

    Raises:
        CheckpointError: naming missing, unused and wrongly shaped tensors together.
    """
    report = assign(model, tensors, optional=counters(model.state_dict()))
    if report:
        raise CheckpointError(f"its tensors do not fit the architecture that they tell: {report}")


def assign(model: nn.Module, tensors: Mapping[str, Tensor], *, optional: Set[str] = frozenset()) -> str:
    """Make the tensors those of the model, if all fit; what does not, in one line, else "".

    They are assigned, not copied: half-precision weights stay so. A parameter that modules share stays shared where the
    tensors under its names are equal.
    """
    report = misfits(model.state_dict(), tensors, optional=optional)
    if not report:
        shared = _shared(model)
        model.load_state_dict(dict(tensors), strict=False, assign=True)
        for first, others in shared:
            for name in (other for other in others if torch.equal(tensors[first], tensors[other])):
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, model.get_parameter(first))
    return report


def _shared(model: nn.Module) -> list[tuple[str, list[str]]]:
    """The names of each parameter that has several: the first, the others."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [(first, others) for first, *others in names.values() if others]
