"""Numbers as the tables of a report show them, and tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from gcnet.analysis.intervals import Mean
from gcnet.surgery.timing import Timing


def percent(mean: Mean, *, sign: str = "") -> str:
    """A share in percent, or with the sign "+" a difference in points, with its interval."""
    spread = "" if mean.half_width is None else f" ± {100 * mean.half_width:.1f}"
    return f"{100 * mean.value:{sign}.1f}{spread}"


def scaled(count: int) -> str:
    """A large number in three digits.

    Example:
        >>> scaled(4_089_000_000), scaled(12)
        ('4.09 G', '12')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return str(count)


def ratio(timing: Timing) -> str:
    """Of times, with its interval."""
    return f"×{timing.ratio.value:.2f} ({timing.ratio.low:.2f}–{timing.ratio.high:.2f})"


def milliseconds(timing: Timing) -> str:
    """Of one batch."""
    return f"{1000 * timing.seconds.value:.1f} ms"


def cell(value: object) -> str:
    """Whatever is in a CSV file."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of dicts as CSV; the columns are those of all rows, in the order of their first appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
