"""The thresholds of `gcnet.analysis.verdict` from trials in which it is known whether a model needs its queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

MISSED = 0.05  # share of the trials of either kind that may lie on the wrong side


@dataclass(frozen=True)
class Trial:
    """A trained model: the dependence of its most dependent block with its interval over images, and the truth.

    `form` is that of its maps. `needed` tells whether all models with one context for all positions were worse; trials
    of one `seed` are not independent, since they share initial weights and the order of the data.
    """

    form: str
    dependence: float
    low: float
    high: float
    needed: bool
    seed: int


@dataclass(frozen=True)
class Thresholds:
    """As in `gcnet.analysis.verdict`; `separated` tells whether a gap lay between the two kinds of trials."""

    independent_below: float
    dependent_above: float
    separated: bool

    def judge(self, trial: Trial) -> bool | None:
        """What the verdict says of a trial: its queries are needed, are not, or undecided (None)."""
        if trial.high < self.independent_below:
            return False
        return True if trial.low > self.dependent_above else None


@dataclass(frozen=True)
class Score:
    """How many trials were judged rightly, wrongly and not at all."""

    right: int
    wrong: int
    undecided: int


def calibrate(trials: Sequence[Trial]) -> dict[str, Thresholds]:
    """Thresholds for each form that at most 5 % of either kind of trials transgress.

    Let b be the dependence that at most 5 % of the trials with need stay below, of all forms together: how far maps
    must at least differ before one map loses something. Let a be the dependence that at most 5 % of a form's trials
    without need exceed: how far its maps differ in vain. If a < b there is a gap, and its middle third is left
    undecided; else the two kinds overlap, and all of the overlap is: "independent" below b, "dependent" above a. The
    shares are of each kind by itself, so the thresholds do not hang on how many trials of each kind there happen to be.

    Raises:
        ValueError: there is no trial with need, or none without need of some form.
    """
    need = sorted(trial.dependence for trial in trials if trial.needed)
    found = {}
    for form in dict.fromkeys(trial.form for trial in trials) or ["any form"]:
        free = sorted(trial.dependence for trial in trials if trial.form == form and not trial.needed)
        _both(form, free, need)
        a = free[len(free) - 1 - math.floor(MISSED * len(free))]
        b = need[math.floor(MISSED * len(need))]
        third = (b - a) / 3
        found[form] = Thresholds(a + third, b - third, True) if third > 0 else Thresholds(b, a, False)
    return found


def _both(form: str, free: Sequence[float], need: Sequence[float]) -> None:
    if not free or not need:
        raise ValueError(
            f"trials: {len(free)} of {form} without and {len(need)} with need of queries; thresholds need both"
        )


def score(trials: Sequence[Trial], thresholds: Mapping[str, Thresholds]) -> Score:
    """The verdicts by given thresholds."""
    said = [(thresholds[trial.form].judge(trial), trial.needed) for trial in trials]
    undecided = sum(verdict is None for verdict, _ in said)
    right = sum(verdict == needed for verdict, needed in said)
    return Score(right, len(trials) - right - undecided, undecided)


def leave_one_seed_out(trials: Sequence[Trial]) -> Score:
    """The verdicts on the trials of each seed by the thresholds of the others.

    Raises:
        ValueError: without one of the seeds a kind of trials is absent.
    """
    total = Score(0, 0, 0)
    for seed in sorted({trial.seed for trial in trials}):
        others = [trial for trial in trials if trial.seed != seed]
        thresholds = calibrate(others)
        for form in {trial.form for trial in trials} - {*thresholds}:
            _both(form, [], [trial.dependence for trial in others if trial.needed])
        own = score([trial for trial in trials if trial.seed == seed], thresholds)
        total = replace(total, **{name: getattr(total, name) + count for name, count in vars(own).items()})
    return total
