"""What passes between a file and the adapter of the program that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gcnet.files.tensors import Stored

Shape = tuple[int, ...]
ABSENT = object()
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


def content_of(stored: Stored) -> Content:
    """The tensors, under plain names, and the notes in what was read."""
    notes = table(stored.beside.get("meta"))
    data = table(notes.get("dataset_meta"))
    classes = names_in(data.get("classes", data.get("CLASSES", notes.get("CLASSES"))))
    averaged = [key for key in _AVERAGED if isinstance(stored.beside.get(key), Mapping)]
    assumed = [f"weights: those of the last step; the file also has averaged ones ({key})" for key in averaged]
    return Content(stored.plain, notes, classes, assumed)


def value_at(where: Any, path: str) -> Any:
    """The entry at a path such as "backbone.style" in nested mappings; ABSENT where there is none."""
    for key in path.split("."):
        if not isinstance(where, Mapping) or key not in where:
            return ABSENT
        where = where[key]
    return where


def other_settings(where: Any, fixed: Iterable[tuple[str, tuple[Any, ...]]]) -> str:
    """The entries whose value is none of those that gcnet builds, in words: `fixed` has (path, allowed values)."""
    wrong = []
    for path, allowed in fixed:
        value = value_at(where, path)
        value = list(value) if isinstance(value, tuple) else value
        if value is not ABSENT and value is not None and value not in allowed:
            wrong.append(f"{path}={value!r} (gcnet: {allowed[0]!r})")
    return "; ".join(wrong)


def table(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def names_in(value: Any) -> list[str] | None:
    """The value if it is a list of words, else None."""
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return list(value)
    return None
