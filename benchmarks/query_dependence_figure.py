"""The figure of `query_dependence.py`; drawn without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from gcnet.analysis.intervals import Mean
from gcnet.scenes.conclusions import EQUAL
from thresholds import Thresholds

# Okabe and Ito's colours, told apart by the colour-blind; the markers tell them apart without colours.
GREY = "#8a8f98"
STYLES = {
    "snl": (GREY, "x"),
    "nl": ("#0072B2", "o"),
    "nl-gaussian": ("#E69F00", "s"),
    "nl-dot_product": ("#009E73", "^"),
    "nl-concatenation": ("#CC79A7", "v"),
    "dnl": ("#D55E00", "D"),
}


@dataclass(frozen=True)
class Curve:
    """One model along the dial: at each share of rows that need a partner its gain over GC, and its dependence."""

    model: str
    shares: list[float]
    gaps: list[Mean]
    dependences: list[Mean]  # none of a model without queries


@dataclass(frozen=True)
class Dot:
    """One run: dependence, accuracy lost with one map for all queries, gain over the best model with one context."""

    model: str
    dependence: float
    lost: float
    gain: float
    twice: bool


def draw(curves: Sequence[Curve], dots: Sequence[Dot], thresholds: Thresholds | None, path: Path) -> list[Path]:
    """Write `path` with .svg and .png, and return both.

    Args:
        curves: for the two panels above.
        dots: for the two below.
        thresholds: the grey band of the left one of these; None for none.
        path: without suffix.
    """
    figure = Figure(figsize=(8.4, 7.0), layout="constrained", facecolor="white")
    (gap, dependence), (lost, gain) = figure.subplots(2, 2)
    for number, curve in enumerate(curves):
        shift = 0.012 * (number - (len(curves) - 1) / 2)  # so that bars do not hide one another
        shares = [share + shift for share in curve.shares]
        _line(gap, curve.model, shares, curve.gaps, 100)
        if curve.dependences:
            _line(dependence, curve.model, shares, curve.dependences, 1)
    for axes in (gap, dependence):
        axes.set_xlabel("share of rows that need a partner")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\ncue", "1/4", "1/2", "3/4", "1\nmirror"])
    gap.set_ylabel("accuracy above GC, points")
    dependence.set_ylabel("dependence on the query")
    for dot in dots:
        colour, marker = STYLES[dot.model]
        style = {"marker": "x", "s": 24, "linewidths": 1.2} if dot.twice else {"marker": marker, "s": 16}
        lost.scatter(dot.dependence, 100 * dot.lost, color=colour, **style)
        gain.scatter(dot.dependence, 100 * dot.gain, color=colour, **style)
    if thresholds is not None:
        lost.axvspan(thresholds.independent_below, thresholds.dependent_above, color="#e3e6ea", zorder=0)
    lost.set_ylabel("lost with one map, points")
    gain.set_ylabel("above the best with one context, points")
    for axes in (lost, gain):
        axes.set_xlabel("dependence on the query")
        axes.axhline(100 * EQUAL, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    for axes in (gap, dependence, lost, gain):
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eceef1", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = gap.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) or 1, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".svg"), path.with_suffix(".png")]
    with rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):  # equal results give equal files
        figure.savefig(written[0], metadata={"Date": None})
    figure.savefig(written[1], dpi=130)
    return written


def _line(axes: Any, model: str, shares: list[float], means: list[Mean], factor: float) -> None:
    colour, marker = STYLES[model]
    halves = [factor * (mean.half_width or 0) for mean in means]
    values = [factor * mean.value for mean in means]
    axes.errorbar(
        shares,
        values,
        yerr=halves,
        color=colour,
        marker=marker,
        markersize=4.5,
        linewidth=1.4,
        elinewidth=1,
        label=model,
    )
