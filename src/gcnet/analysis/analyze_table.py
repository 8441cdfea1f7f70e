"""An analysis as text: the distances of every block, and the verdicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gcnet.analysis.analyze import Analysis
    from gcnet.analysis.verdict import Verdict

_COLUMNS = {
    "input_cos": "input cos",
    "output_cos": "output cos",
    "output_cos_no_bias": "without bias",
    "att_cos": "att cos",
    "att_jsd": "att JSD",
    "unary_share": "key-only share",
}


def tables(analysis: Analysis) -> Group:
    """What `print(analysis)` shows, for rich."""
    count = analysis.images
    title = Text(f"{analysis.model}, {count} image{'s' * (count != 1)}: mean and 95 % interval over images")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(("block", "kind", *_COLUMNS.values(), "looks at")):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for row in analysis.table:
        cells = (_interval(row, name) for name in _COLUMNS)
        # texts, since a module's name is no markup
        table.add_row(*(Text(text) for text in (_name(row["block"]), _kind(row), *cells, _reach(row))))
    verdicts = [Text(f"{_name(block)}: {found} ({_numbers(found)})") for block, found in analysis.verdicts.items()]
    notes = [Text(f"not read: {_name(name)}: {reason}") for name, reason in analysis.skipped.items()]
    return Group(title, Text(), table, Text(), *verdicts, *notes)


def _name(block: str) -> str:
    return block or "(the model)"


def _numbers(found: Verdict) -> str:
    """What a verdict rests on."""
    n = found.numbers
    value = f"{n['dependence']:.3f}" + (f", {n['low']:.3f}-{n['high']:.3f}" if n["images"] > 1 else "")
    return f"dependence {value}; GC below {n['independent_below']:g}, NL above {n['dependent_above']:g}"


def _kind(row: dict[str, Any]) -> str:
    return row["kind"] if row["form"] == "softmax" else f"{row['kind']} ({row['form']})"


def _interval(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if row["images"] == 1 else f"{value:.3f} ({low:.3f}-{high:.3f})"


def _reach(row: dict[str, Any]) -> str:
    """The effective number of positions, of how many keys."""
    return "-" if math.isnan(row["effective_positions"]) else f"{row['effective_positions']:.1f} of {row['keys']:.0f}"
