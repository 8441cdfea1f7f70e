"""Globs over module names: `*` inside one dotted segment, `**` across any number of them."""

import re
from collections.abc import Sequence

from torch import nn

from gcnet.errors import RewriteError, some


def match_modules(model: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """Names of the modules that any pattern matches, in the model's order.

    Raises:
        RewriteError: a pattern matches nothing, or one match lies inside another.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise RewriteError("at=() names no module; give a glob such as 'layer4.*.conv2'")
    names = [name for name, _ in model.named_modules() if name]
    found: set[str] = set()
    for pattern in patterns:
        expression = glob_to_regex(pattern)
        matched = [name for name in names if expression.fullmatch(name)]
        if not matched:
            raise RewriteError(
                f"at={pattern!r} matches no module; modules with the nearest names: {_near(pattern, names)}"
            )
        found.update(matched)
    ordered = [name for name in names if name in found]
    for outer in ordered:
        inner = [name for name in ordered if name.startswith(outer + ".")]
        if inner:
            raise RewriteError(
                f"at={patterns!r} is ambiguous: it matches {outer!r} and, inside it, {some(inner)}; "
                "make the glob match one level ('*' stays inside one dotted segment)"
            )
    return ordered


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """`a.*.b` -> one segment in the middle; `**.b` -> any number of segments (also none) before b.

    Example:
        >>> bool(glob_to_regex("encoder.stage*.conv").fullmatch("encoder.stage2.conv"))
        True
        >>> bool(glob_to_regex("encoder.*").fullmatch("encoder.stage2.conv"))
        False
        >>> bool(glob_to_regex("**.conv").fullmatch("conv"))
        True
    """
    expression = ""
    segments = pattern.split(".")
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "**":
            expression += r".+" if last else r"(?:[^.]+\.)*"
        else:
            parts = (re.escape(part) for part in re.split(r"([*?])", segment))
            wild = {re.escape("*"): r"[^.]*", re.escape("?"): r"[^.]"}
            expression += "".join(wild.get(part, part) for part in parts) + ("" if last else r"\.")
    return re.compile(expression)


def _near(pattern: str, names: list[str]) -> str:
    """The modules below the longest plain start of the pattern that exists, or the top level."""
    plain = re.split(r"[*?]", pattern)[0].split(".")
    for length in range(len(plain), 0, -1):
        start = ".".join(plain[:length]).rstrip(".")
        below = [name for name in names if start and name.startswith(start)]
        if below:
            return some(below)
    return some(name for name in names if "." not in name)
