"""Checks of options that several blocks share; each error names the option, its value and what is allowed."""


def check_count(name: str, value: int, minimum: int = 1) -> int:
    """Return value if it is a whole number of at least minimum; raise ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}={value!r} is not allowed; use a whole number >= {minimum}")
    return value


def hidden_channels(channels: int, reduction: int) -> int:
    """channels // reduction, which must leave at least one channel."""
    check_count("channels", channels)
    check_count("reduction", reduction)
    if reduction > channels:
        raise ValueError(
            f"reduction={reduction} leaves no hidden channel for channels={channels}; use at most {channels}"
        )
    return channels // reduction


def check_odd(name: str, value: int) -> int:
    """Return value if it is an odd number of at least 1 (a kernel with a centre); raise ValueError otherwise."""
    if check_count(name, value) % 2 == 0:
        raise ValueError(f"{name}={value} is even; use an odd number, so that the kernel has a centre")
    return value
