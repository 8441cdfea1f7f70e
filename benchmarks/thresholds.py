"""The two thresholds of `gcnet.analysis.verdict` from trials in which it is known whether a model uses its queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

MISSED = 0.05  # share of the trials of either kind that may lie on the wrong side


@dataclass(frozen=True)
class Trial:
    """A trained model: the dependence of its most dependent block with its interval over images, and the truth.

    `used` tells whether the trained model becomes worse when each image gets one map for all its queries; trials of one
    `seed` are not independent, since they share initial weights and the order of the data.
    """

    dependence: float
    low: float
    high: float
    used: bool
    seed: int


@dataclass(frozen=True)
class Thresholds:
    """As in `gcnet.analysis.verdict`; `separated` tells whether a gap lay between the two kinds of trials."""

    independent_below: float
    dependent_above: float
    separated: bool

    def judge(self, trial: Trial) -> bool | None:
        """What the verdict says of a trial: its queries are used, are not, or undecided (None)."""
        if trial.high < self.independent_below:
            return False
        return True if trial.low > self.dependent_above else None


@dataclass(frozen=True)
class Score:
    """How many trials were judged rightly, wrongly and not at all."""

    right: int
    wrong: int
    undecided: int


def calibrate(trials: Sequence[Trial]) -> Thresholds:
    """Thresholds that at most 5 % of either kind of trials transgress.

    Let a be the dependence that at most 5 % of the trials without use exceed, and b the one that at most 5 % of those
    with use stay below. If a < b there is a gap, and its middle third is left undecided; else the two kinds overlap,
    and all of the overlap is: "independent" below b, "dependent" above a. The shares are of each kind by itself, so the
    thresholds do not hang on how many trials of each kind an experiment happens to have.

    Raises:
        ValueError: one of the two kinds is absent.
    """
    free = sorted(trial.dependence for trial in trials if not trial.used)
    used = sorted(trial.dependence for trial in trials if trial.used)
    if not free or not used:
        raise ValueError(
            f"trials: {len(free)} without and {len(used)} with use of their queries; thresholds need both kinds"
        )
    a = free[len(free) - 1 - math.floor(MISSED * len(free))]
    b = used[math.floor(MISSED * len(used))]
    if a < b:
        return Thresholds(a + (b - a) / 3, b - (b - a) / 3, separated=True)
    return Thresholds(b, a, separated=False)


def score(trials: Sequence[Trial], thresholds: Thresholds) -> Score:
    """The verdicts by given thresholds."""
    said = [(thresholds.judge(trial), trial.used) for trial in trials]
    undecided = sum(verdict is None for verdict, _ in said)
    right = sum(verdict == used for verdict, used in said)
    return Score(right, len(trials) - right - undecided, undecided)


def leave_one_seed_out(trials: Sequence[Trial]) -> Score:
    """The verdicts on the trials of each seed by the thresholds of the others.

    Raises:
        ValueError: without one of the seeds a kind of trials is absent.
    """
    total = Score(0, 0, 0)
    for seed in sorted({trial.seed for trial in trials}):
        thresholds = calibrate([trial for trial in trials if trial.seed != seed])
        own = score([trial for trial in trials if trial.seed == seed], thresholds)
        total = replace(total, **{name: getattr(total, name) + count for name, count in vars(own).items()})
    return total
