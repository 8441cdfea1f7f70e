"""The errors that users meet, and the checks that several rooms share: the message names the argument and its value.

All are ValueErrors; a wrong type is a TypeError as well. A file that is not there stays FileNotFoundError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class GcnetError(ValueError):
    """What was asked for cannot be done; the message says which argument, its value, what is allowed, what to do."""


class GcnetTypeError(GcnetError, TypeError):
    """An argument of another kind than is allowed."""


class RewriteError(GcnetError):
    """The arguments do not fit the model, which is untouched; the message names them and lists what would fit."""


class CheckpointError(GcnetError):
    """A file that is no checkpoint, a damaged one, or one that does not fit; the message says which and what to do."""


class WeightsError(GcnetError):
    """A file of weights that cannot be used, with the reason in words."""


class SettingsError(GcnetError):
    """A setting with a value that is not allowed, or that does not fit the run it is for."""


class UsageError(SettingsError):
    """Arguments that do not go together; a command that is called like this ends with exit code 2."""


class RunError(GcnetError):
    """A run that cannot begin or go on in its folder; the message says what to do."""


class NonFiniteError(GcnetError):
    """The loss or the gradients are NaN or infinite; the message names the step and the batch's files."""


class DataError(GcnetError):
    """A folder or file that cannot be used as a set of images with labels, boxes or masks."""


class DataWarning(UserWarning):
    """Something in the data that a person should know of, though work can go on."""


class ItemsError(GcnetError):
    """The pictures that a scene needs are absent or damaged; the message says what to install or where to put them."""


class ImageError(GcnetError):
    """A file that cannot be used as an image: `path` says which, `reason` why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)  # args as given, so that it pickles out of a worker process
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def whole(name: str, value: Any, lowest: int = 1, *, kind: type[GcnetError] = GcnetError) -> int:
    """The value, if it is a whole number from `lowest` (True and False are none)."""
    if type(value) is not int or value < lowest:
        raise kind(f"{name}={value!r}: allowed are whole numbers from {lowest}")
    return value


def choice(name: str, value: Any, allowed: Sequence[Any], *, kind: type[GcnetError] = GcnetError) -> Any:
    """The value, if it is one of `allowed` and of the same type (1 is not True)."""
    if not is_one_of(value, allowed):
        raise kind(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}")
    return value


def is_one_of(value: Any, allowed: Sequence[Any]) -> bool:
    """Whether a value is among those allowed, type included: 1 is not True."""
    return any(value is one or (type(value) is type(one) and value == one) for one in allowed)


def some(names: Iterable[str], most: int = 12) -> str:
    """A list of candidates for an error message, cut to `most`."""
    names = list(names)
    tail = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + tail
