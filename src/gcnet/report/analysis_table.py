"""An analysis as text: the distances of every block, and the verdicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gcnet.analysis.verdict import Verdict
    from gcnet.report.analysis import Analysis

COLUMNS = {
    "input_cos": "input cos",
    "output_cos": "output cos",
    "output_cos_no_bias": "without bias",
    "att_cos": "att cos",
    "att_jsd": "att JSD",
    "unary_share": "key-only share",
}


def tables(analysis: Analysis) -> Group:
    """What `print(analysis)` shows, for rich."""
    title = Text(f"{analysis.model}, {images_of(analysis)}: mean and 95 % interval over images")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(("block", "kind", *COLUMNS.values(), "looks at")):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for row in analysis.table:
        cells = (" ".join(filter(None, interval(row, name))) for name in COLUMNS)
        # texts, since a module's name is no markup
        table.add_row(*(Text(text) for text in (name_of(row["block"]), kind_of(row), *cells, reach(row))))
    verdicts = [Text(f"{name_of(block)}: {found} ({_numbers(found)})") for block, found in analysis.verdicts.items()]
    notes = [Text(f"not read: {name_of(name)}: {reason}") for name, reason in analysis.skipped.items()]
    return Group(title, Text(), table, Text(), *verdicts, *notes)


def images_of(analysis: Analysis) -> str:
    """How many images were looked at, in words."""
    return f"{analysis.images} image{'s' * (analysis.images != 1)}"


def name_of(block: str) -> str:
    """A block's name for people."""
    return block or "(the model)"


def dependence(found: Verdict) -> str:
    """What a verdict rests on; one image has no interval."""
    n = found.numbers
    return f"dependence {n['dependence']:.3f}" + (f", {n['low']:.3f}-{n['high']:.3f}" if n["images"] > 1 else "")


def _numbers(found: Verdict) -> str:
    n = found.numbers
    return f"{dependence(found)}; GC below {n['independent_below']:g}, NL above {n['dependent_above']:g}"


def kind_of(row: dict[str, Any]) -> str:
    """A block's class, and its form unless that is the usual softmax."""
    return row["kind"] if row["form"] == "softmax" else f"{row['kind']} ({row['form']})"


def interval(row: dict[str, Any], name: str) -> tuple[str, str]:
    """A figure and its interval; one image has none."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return "-", ""
    return f"{value:.3f}", "" if row["images"] == 1 else f"({low:.3f}-{high:.3f})"


def reach(row: dict[str, Any]) -> str:
    """The effective number of positions, of how many keys."""
    return "-" if math.isnan(row["effective_positions"]) else f"{row['effective_positions']:.1f} of {row['keys']:.0f}"
