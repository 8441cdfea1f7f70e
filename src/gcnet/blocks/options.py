"""Checks of the options that several blocks share; each error names the option, its value, what is allowed."""

from collections.abc import Sequence

from gcnet.errors import GcnetError, GcnetTypeError, is_one_of


def check_channels(channels: int) -> None:
    """Raise unless channels is a positive int."""
    if type(channels) is not int:
        raise GcnetTypeError(f"channels={channels!r} is a {type(channels).__name__}; give a positive int")
    if channels < 1:
        raise GcnetError(f"channels={channels} is not allowed; give a positive int")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ValueError unless value is one of allowed."""
    if not is_one_of(value, allowed):
        raise GcnetError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, allowed))}")


def hidden_channels(channels: int, reduction: int, hidden: int | None = None) -> int:
    """The width of a bottleneck: `hidden`, or channels // reduction; at least one channel. All three are checked."""
    check_channels(channels)
    if hidden is not None:
        if type(hidden) is not int or hidden < 1:
            raise GcnetError(
                f"hidden={hidden!r} is not allowed; give a positive int, or None for channels // reduction"
            )
        return hidden
    if type(reduction) is not int or reduction < 1:
        raise GcnetError(f"reduction={reduction!r} is not allowed; give a positive int")
    if channels < reduction:
        raise GcnetError(
            f"reduction={reduction} leaves no hidden channel for channels={channels}; use at most {channels}"
        )
    return channels // reduction


def check_count(name: str, value: int, minimum: int = 1) -> int:
    """Return value if it is an int of at least minimum; raise ValueError otherwise."""
    if type(value) is not int or value < minimum:
        raise GcnetError(f"{name}={value!r} is not allowed; give an int of at least {minimum}")
    return value


def check_odd(name: str, value: int) -> int:
    """Return value if it is an odd positive int; raise ValueError otherwise."""
    if check_count(name, value) % 2 == 0:
        raise GcnetError(f"{name}={value} is even; give an odd int, so that the kernel has a centre")
    return value
