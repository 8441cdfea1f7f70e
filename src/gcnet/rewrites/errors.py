"""What a rewrite raises when it cannot do what was asked. The model it was given is untouched then."""

from collections.abc import Iterable


class RewriteError(ValueError):
    """The arguments do not fit the model; the message names them and lists what would fit."""


def some(names: Iterable[str], most: int = 12) -> str:
    """A list of candidates for an error message, cut to `most`."""
    names = list(names)
    tail = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + tail
