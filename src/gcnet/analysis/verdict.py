"""The verdict on a block: does its attention depend on the query?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gcnet.analysis.attention import DISTRIBUTIONS


class Thresholds(NamedTuple):
    """Of the dependence, which is between 0 (one map for all queries) and 0.5 (maps that share nothing)."""

    independent_below: float
    dependent_above: float


# By the form of the maps. Calibrated by `benchmarks/query_dependence.py` on trained blocks of which it is known whether
# one map for all queries would have done; a test compares them with its results in benchmarks/results.
THRESHOLDS = {
    "softmax": Thresholds(0.1, 0.2),
    "disentangled": Thresholds(0.1, 0.2),
    "gaussian": Thresholds(0.1, 0.2),
    "dot_product": Thresholds(0.1, 0.2),
    "concatenation": Thresholds(0.1, 0.2),
}

INDEPENDENT = "query-independent: GC would do"
DEPENDENT = "query-dependent: keep NL"
UNDECIDED = "undecided"


class Verdict(str):
    """One of three sentences; `numbers` has what it rests on.

    `numbers`: `dependence` of the head that depends most, its `low` and `high`, that `head`, `images`, and the two
    thresholds. The dependence is att_cos for maps that are distributions, and att_spread / 2 for the dot product and
    concatenation forms, where equal directions of different lengths are different contexts as well. Query-independent:
    `high` is below `independent_below`, so it holds for every head. Query-dependent: `low` is above `dependent_above`,
    so at least one head needs its queries. With a single image there is no interval, and its value decides: the verdict
    is then about this image.
    """

    numbers: dict[str, Any]


def measure(form: str) -> tuple[str, float]:
    """The figure that is the dependence for maps of that form, and the factor that brings it to at most 0.5."""
    return ("att_cos", 1.0) if form in DISTRIBUTIONS else ("att_spread", 0.5)


def verdict(heads: Mapping[int, tuple[float, float, float]], images: int, form: str = "softmax") -> Verdict:
    """The verdict on a block.

    Args:
        heads: head -> dependence, and the lower and upper end of its interval over images.
        images: how many.
        form: of the maps, a key of `THRESHOLDS`.
    """
    thresholds = THRESHOLDS[form]
    head, (value, low, high) = max(heads.items(), key=lambda item: item[1][0])
    if images == 1:
        low = high = value
    else:
        high = max(bound for _, _, bound in heads.values())
    text = UNDECIDED
    if high < thresholds.independent_below:
        text = INDEPENDENT
    elif low > thresholds.dependent_above:
        text = DEPENDENT
    found = Verdict(text)
    found.numbers = {"dependence": value, "low": low, "high": high, "head": head, "images": images}
    found.numbers |= thresholds._asdict()
    return found
