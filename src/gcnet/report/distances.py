"""The distances of every block with their verdicts: as text, and on a page with the maps to look at."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from rich.console import Group
from rich.text import Text

from gcnet.analysis.measure import Findings
from gcnet.analysis.verdict import DEPENDENT, INDEPENDENT, THRESHOLDS, UNDECIDED, Verdict
from gcnet.report.maps import page_data, short_names
from gcnet.report.page import render
from gcnet.report.terminal import plain_table
from gcnet.version import __version__

COLUMNS = {
    "input_cos": "input cos",
    "output_cos": "output cos",
    "output_cos_no_bias": "without bias",
    "att_cos": "att cos",
    "att_jsd": "att JSD",
    "unary_share": "key-only share",
}
# Of matplotlib's viridis, 17 of its 256 colours at equal distances; between them the script interpolates.
VIRIDIS = (
    *("#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c"),
    *("#1f9f88", "#27ad81", "#3dbc74", "#5cc863", "#81d34d", "#aadc32", "#d5e21a", "#fde725"),
)
_STYLE = {INDEPENDENT: "independent", DEPENDENT: "dependent", UNDECIDED: "undecided"}


def tables(analysis: Findings) -> Group:
    """What `print(analysis)` shows, for rich."""
    title = Text(f"{analysis.model}, {_images_of(analysis)}: mean and 95 % interval over images")
    rows = []
    for row in analysis.table:
        cells = (" ".join(filter(None, _interval(row, name))) for name in COLUMNS)
        rows.append([name_of(row["block"]), _kind_of(row), *cells, _reach(row)])
    table = plain_table(["block", "kind", *COLUMNS.values(), "looks at"], rows, left=(0, 1), wrap=True)
    verdicts = []
    for block, found in analysis.verdicts.items():
        bounds = "GC below {independent_below:g}, NL above {dependent_above:g}".format(**found.numbers)
        verdicts.append(Text(f"{name_of(block)}: {found} ({_dependence(found)}; {bounds})"))
    notes = [Text(f"not read: {name_of(name)}: {reason}") for name, reason in analysis.skipped.items()]
    return Group(title, Text(), table, Text(), *verdicts, *notes)


def page(analysis: Findings) -> str:
    """The whole report as HTML: one file with its pictures, maps and script inside; nothing is fetched or sent."""
    return render(
        "analysis.html",
        model=analysis.model,
        count=_images_of(analysis),
        lead=_lead(analysis),
        columns=list(COLUMNS.values()),
        rows=[_row(analysis, row) for row in analysis.table],
        thresholds=THRESHOLDS,
        skipped={name_of(name): reason for name, reason in analysis.skipped.items()},
        unreadable=dict(zip(short_names(list(analysis.unreadable)), analysis.unreadable.values(), strict=True)),
        shown=len(analysis.kept),
        data={**page_data(analysis), "colours": VIRIDIS},
        version=__version__,
    )


def _row(analysis: Findings, row: dict[str, Any]) -> dict[str, Any]:
    found = analysis.verdicts[row["block"]]
    own = {"verdict": str(found), "style": _STYLE[str(found)], "numbers": _dependence(found)}
    if row["queries"] == 1:
        own = {"verdict": "one map for all queries", "style": "undecided", "numbers": ""}
    return own | {
        "name": name_of(row["block"]),
        "kind": _kind_of(row),
        "cells": [_interval(row, name) for name in COLUMNS],
        "reach": _reach(row),
    }


def _lead(analysis: Findings) -> str:
    """How many blocks got which verdict."""
    several = [row["block"] for row in analysis.table if row["queries"] > 1]
    found = Counter(str(analysis.verdicts[name]) for name in several)
    parts = [f"{found[text]} {text.split(':')[0]}" for text in (INDEPENDENT, DEPENDENT, UNDECIDED) if found[text]]
    if single := len(analysis.table) - len(several):
        parts.append(f"{single} with one map for all queries")
    return f"Blocks: {', '.join(parts)}."


def _images_of(analysis: Findings) -> str:
    """How many images were looked at, in words."""
    return f"{analysis.images} image{'s' * (analysis.images != 1)}"


def name_of(block: str) -> str:
    """A block's name for people."""
    return block or "(the model)"


def _dependence(found: Verdict) -> str:
    """What a verdict rests on; one image has no interval."""
    n = found.numbers
    return f"dependence {n['dependence']:.3f}" + (f", {n['low']:.3f}-{n['high']:.3f}" if n["images"] > 1 else "")


def _kind_of(row: dict[str, Any]) -> str:
    """A block's class, and its form unless that is the usual softmax."""
    return row["kind"] if row["form"] == "softmax" else f"{row['kind']} ({row['form']})"


def _interval(row: dict[str, Any], name: str) -> tuple[str, str]:
    """A figure and its interval; one image has none."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return "-", ""
    return f"{value:.3f}", "" if row["images"] == 1 else f"({low:.3f}-{high:.3f})"


def _reach(row: dict[str, Any]) -> str:
    """The effective number of positions, of how many keys."""
    return "-" if math.isnan(row["effective_positions"]) else f"{row['effective_positions']:.1f} of {row['keys']:.0f}"
