"""What a comparison found: one row per variant, with intervals over seeds and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcnet.analysis.intervals import Mean, mean_interval
from gcnet.analysis.published import Published
from gcnet.surgery.timing import Timing

PLAIN = "none"  # the label of the row without a block
_SUMMARY = ("epochs", "best_epoch", "seconds_per_epoch", "seconds", "skipped_images")  # what `runs.csv` has of it


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-accumulates of one image, and times of one batch measured side by side with the others."""

    parameters: int
    macs: int
    training: Timing
    inference: Timing


@dataclass(frozen=True)
class Result:
    """A finished run with its figures on the split that is reported."""

    label: str
    seed: int
    folder: Path
    figures: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why."""

    label: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One variant. Accuracies are by seed; `difference` is to the first row, over the seeds that both have."""

    label: str
    accuracies: Mapping[int, float]
    accuracy: Mean | None
    difference: Mean | None
    cost: Cost
    added_parameters: int
    added_macs: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that a comparison found; `rows[0]` is what the others are compared with.

    `settings` are those that all runs share, `metric` is the headline figure of the task, `split` what it was measured
    on, `axis` what was varied if not the block; `published` has the paper's figures of the rows that are among its
    ablations.
    """

    folder: Path
    settings: Any  # a `gcnet.recipes.Settings`; nothing in this room reads them
    metric: str
    split: str
    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    axis: str | None = None
    published: Mapping[str, Published] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    @property
    def table(self) -> list[dict[str, Any]]:
        """One dict per row with unrounded numbers: the content of `comparison.csv`."""
        return [
            _flat(row) | (_flat_published(self.published.get(row.label)) if self.published else {}) for row in self.rows
        ]


def make_rows(
    labels: Sequence[str], results: Sequence[Result], costs: Mapping[str, Cost], metric: str
) -> tuple[Row, ...]:
    """Rows in the order of `labels`, differences to the first."""
    scores = {
        label: {result.seed: float(result.figures[metric]) for result in results if result.label == label}
        for label in labels
    }
    first, base = scores[labels[0]], costs[labels[0]]
    rows = []
    for label in labels:
        own, cost = scores[label], costs[label]
        rows.append(
            Row(
                label=label,
                accuracies=own,
                accuracy=mean_interval(list(own.values())) if own else None,
                difference=None if label == labels[0] else paired(own, first),
                cost=cost,
                added_parameters=cost.parameters - base.parameters,
                added_macs=cost.macs - base.macs,
            )
        )
    return tuple(rows)


def paired(own: Mapping[int, float], other: Mapping[int, float]) -> Mean | None:
    """Mean difference of accuracies over the seeds that both have."""
    pairs = [own[seed] - other[seed] for seed in own if seed in other]
    return mean_interval(pairs) if pairs else None


def findings(comparison: Comparison) -> list[str]:
    """What the numbers say about the differences, in words; computed, so it also says when they say nothing."""
    first, *others = comparison.rows
    told = [row for row in others if row.difference is not None]
    sentences = []
    if told and any(row.difference.half_width is None for row in told if row.difference):
        sentences.append(
            "At least one difference rests on a single seed: it has no interval, and chance cannot be told from effect."
        )
    above, below, open_ = [], [], []
    for row in told:
        assert row.difference is not None
        value, half = row.difference.value, row.difference.half_width
        if half is not None:
            (above if value > half else below if value < -half else open_).append(f"{row.label} ({points(value)})")
    metric = comparison.metric.replace("_", " ")
    if above:
        sentences.append(f"Higher {metric} than {first.label}, beyond the 95 % interval: {', '.join(above)}.")
    if below:
        sentences.append(f"Lower {metric} than {first.label}, beyond the 95 % interval: {', '.join(below)}.")
    if open_:
        sentences.append(f"These seeds do not tell them from {first.label}: {', '.join(open_)}.")
    if comparison.failures:
        failed = ", ".join(f"{failure.label} seed {failure.seed}" for failure in comparison.failures)
        sentences.append(f"Not finished, and left out of the figures: {failed}.")
    return sentences


def points(value: float) -> str:
    """A difference of shares in percentage points.

    Example:
        >>> points(0.1234), points(-0.004)
        ('+12.3', '-0.4')
    """
    return f"{100 * value:+.1f}"


def run_table(comparison: Comparison) -> list[dict[str, Any]]:
    """One dict per run, finished or not: the content of `runs.csv`."""
    done = [
        {
            "variant": result.label,
            "seed": result.seed,
            "status": "done",
            **{name: value for name, value in result.figures.items() if isinstance(value, int | float)},
            **{name: result.summary.get(name) for name in _SUMMARY},
            "folder": str(result.folder),
        }
        for result in comparison.results
    ]
    failed = [
        {"variant": failure.label, "seed": failure.seed, "status": failure.reason} for failure in comparison.failures
    ]
    return done + failed


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"variant": row.label, "seeds": len(row.accuracies)}
    for name, mean in (("accuracy", row.accuracy), ("difference", row.difference)):
        flat[name] = mean.value if mean else None
        flat[f"{name}_half_width"] = mean.half_width if mean else None
    flat |= {
        "parameters": row.cost.parameters,
        "added_parameters": row.added_parameters,
        "macs": row.cost.macs,
        "added_macs": row.added_macs,
    }
    for name, timing in (("training", row.cost.training), ("inference", row.cost.inference)):
        flat |= {
            f"{name}_seconds": timing.seconds.value,
            f"{name}_ratio": timing.ratio.value,
            f"{name}_ratio_low": timing.ratio.low,
            f"{name}_ratio_high": timing.ratio.high,
        }
    return flat


def _flat_published(published: Published | None) -> dict[str, Any]:
    """The paper's columns; all are empty in a row that the paper does not have."""
    flat: dict[str, Any] = {}
    for name, (value, source) in (published or Published()).figures.items():
        flat |= {f"paper_{name}": value, f"paper_{name}_source": None if value is None else source}
    return flat
