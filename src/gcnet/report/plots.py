"""Pictures of a comparison, each for light and dark screens; drawn without matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcnet.analysis.intervals import Mean
from gcnet.surgery.timing import Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Theme:
    """Colours of one screen; `page` equals the page's background."""

    page: str
    text: str
    soft: str
    line: str
    first: str
    second: str


LIGHT = Theme("#ffffff", "#1c2530", "#5b6775", "#dde3ea", "#0b62b8", "#d9822b")
DARK = Theme("#14181d", "#e6eaef", "#9aa6b3", "#2c343d", "#6cb2f5", "#f0a860")


def draw(paint: Callable[[Theme], Canvas]) -> tuple[bytes, bytes]:
    """The same picture as PNG for a light and for a dark page."""
    light, dark = (_png(paint(theme), theme) for theme in (LIGHT, DARK))
    return light, dark


def accuracy_plot(
    theme: Theme, accuracies: Mapping[str, Sequence[float]], means: Mapping[str, Mean], *, metric: str
) -> Canvas:
    """One line per variant: a dot per seed, the mean, its 95 % interval; accuracies in percent."""
    figure, axes = _canvas(theme, len(means))
    labels = list(means)
    for row, label in enumerate(labels):
        mean = means[label]
        colour = theme.soft if row == 0 else theme.first
        if mean.half_width is not None:
            ends = [100 * (mean.value - mean.half_width), 100 * (mean.value + mean.half_width)]
            axes.plot(ends, [row, row], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
        seeds = [100 * value for value in accuracies[label]]
        axes.plot(seeds, [row] * len(seeds), "o", color=colour, markersize=4)
        axes.plot(100 * mean.value, row, "D", color=colour, markersize=7)
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, -5), min(right, 105))
    axes.set_xlabel(f"{metric}, %")
    _rows(axes, labels)
    return figure


def time_plot(theme: Theme, training: Mapping[str, Timing], inference: Mapping[str, Timing]) -> Canvas:
    """Two bars per variant: time of a training step and of inference, as ratios to the first variant."""
    figure, axes = _canvas(theme, len(training))
    labels = list(training)
    for timings, offset, colour, name in (
        (training, -0.18, theme.first, "training step"),
        (inference, 0.18, theme.second, "inference"),
    ):
        ratios = [timings[label].ratio for label in labels]
        axes.barh(
            [row + offset for row in range(len(labels))],
            [ratio.value for ratio in ratios],
            height=0.32,
            color=colour,
            label=name,
            xerr=[[r.value - r.low for r in ratios], [r.high - r.value for r in ratios]],
            error_kw={"ecolor": theme.text, "elinewidth": 1, "capsize": 2},
        )
    axes.axvline(1, color=theme.soft, linewidth=1, linestyle=":")
    axes.set_xlabel(f"time, as a multiple of {labels[0]}")
    _rows(axes, labels)
    axes.legend(frameon=False, labelcolor=theme.text, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def _canvas(theme: Theme, rows: int) -> tuple[Canvas, Axes]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(4.8, 1.1 + 0.36 * rows), facecolor=theme.page, layout="constrained")
    axes = figure.add_subplot(facecolor=theme.page)
    axes.tick_params(colors=theme.soft, labelcolor=theme.text, length=0, labelsize=11)
    axes.grid(axis="x", color=theme.line)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.xaxis.label.set_color(theme.soft)
    axes.xaxis.label.set_fontsize(11)
    return figure, axes


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    # Names come from the command line: matplotlib would read "$...$" as mathematics.
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _png(figure: Canvas, theme: Theme) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor=theme.page)
    return buffer.getvalue()
