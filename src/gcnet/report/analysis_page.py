"""The report: one HTML file with its pictures, maps and script inside; nothing is fetched, nothing leaves it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet import __version__
from gcnet.analysis.verdict import DEPENDENT, INDEPENDENT, THRESHOLDS, UNDECIDED
from gcnet.files.atomic import write_text
from gcnet.report.analysis_table import COLUMNS, dependence, images_of, interval, kind_of, name_of, reach
from gcnet.report.maps import page_data, short_names
from gcnet.report.packages import check_target

if TYPE_CHECKING:
    from gcnet.analysis.results import Analysis

# Of matplotlib's viridis, 17 of its 256 colours at equal distances; between them the script interpolates.
VIRIDIS = (
    *("#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e", "#21918c"),
    *("#1f9f88", "#27ad81", "#3dbc74", "#5cc863", "#81d34d", "#aadc32", "#d5e21a", "#fde725"),
)
_STYLE = {INDEPENDENT: "independent", DEPENDENT: "dependent", UNDECIDED: "undecided"}


def save(analysis: Analysis, path: Path) -> None:
    """Write the report, or the figure with its defaults, as the suffix says."""
    if check_target(path) == ".html":
        write_text(path, page(analysis))
    else:
        analysis.figure(path)


def page(analysis: Analysis) -> str:
    """The whole report as HTML. Every name of a file, class or module is text there, whatever it holds."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gcnet.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("analysis_page.html").render(
        model=analysis.model,
        count=images_of(analysis),
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


def _row(analysis: Analysis, row: dict[str, Any]) -> dict[str, Any]:
    found = analysis.verdicts[row["block"]]
    own = {"verdict": str(found), "style": _STYLE[str(found)], "numbers": dependence(found)}
    if row["queries"] == 1:
        own = {"verdict": "one map for all queries", "style": "undecided", "numbers": ""}
    return own | {
        "name": name_of(row["block"]),
        "kind": kind_of(row),
        "cells": [interval(row, name) for name in COLUMNS],
        "reach": reach(row),
    }


def _lead(analysis: Analysis) -> str:
    """How many blocks got which verdict."""
    several = [row["block"] for row in analysis.table if row["queries"] > 1]
    found = Counter(str(analysis.verdicts[name]) for name in several)
    parts = [f"{found[text]} {text.split(':')[0]}" for text in (INDEPENDENT, DEPENDENT, UNDECIDED) if found[text]]
    if single := len(analysis.table) - len(several):
        parts.append(f"{single} with one map for all queries")
    return f"Blocks: {', '.join(parts)}."
