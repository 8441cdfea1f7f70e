"""Random numbers that depend on what they are for, never on what was drawn before: the ground of exact resuming."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as `derive(0, "step", epoch, batch)`: equal arguments give equal seeds.

    Example:
        >>> derive(0, "step", 1) == derive(0, "step", 1), derive(0, "step", 1) == derive(0, "step", 2)
        (True, False)
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
