"""The verdict on a block: does its attention depend on the query?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of the dependence, which is between 0 (one map for all queries) and 0.5 (maps that share nothing). Calibrated by
# `benchmarks/query_dependence.py` on trained blocks: what each loses when all its queries get one map is in
# benchmarks/results/query_dependence.json, and a test compares what follows from it with what stands here.
THRESHOLDS = {"independent_below": 0.15, "dependent_above": 0.18}

INDEPENDENT = "query-independent: GC would do"
DEPENDENT = "query-dependent: keep NL"
UNDECIDED = "undecided"


class Verdict(str):
    """One of three sentences; `numbers` has what it rests on.

    `numbers`: `dependence` of the head that depends most, its `low` and `high`, that `head`, `images`, and the two
    thresholds. The dependence is att_cos for maps that are distributions, and att_spread / 2 for the dot product and
    concatenation forms, where equal directions of different lengths are different contexts as well. Query-independent:
    `high` is below `independent_below`, so it holds for every head. Query-dependent: `low` is above `dependent_above`,
    so at least one head uses its queries. That is about the block as it was trained: a model trained with GC in its
    place may be as good (docs/query-dependence.md). With a single image there is no interval, and its value decides:
    the verdict is then about this image.
    """

    numbers: dict[str, Any]


def measure(form: str) -> tuple[str, float]:
    """The figure that is the dependence for maps of that form, and the factor that brings it to at most 0.5."""
    return ("att_cos", 1.0) if form == "softmax" else ("att_spread", 0.5)


def verdict(heads: Mapping[int, tuple[float, float, float]], images: int) -> Verdict:
    """The verdict on a block from each head's dependence with the lower and upper end of its interval over images."""
    head, (value, low, high) = max(heads.items(), key=lambda item: item[1][0])
    if images == 1:
        low = high = value
    else:
        high = max(bound for _, _, bound in heads.values())
    text = UNDECIDED
    if high < THRESHOLDS["independent_below"]:
        text = INDEPENDENT
    elif low > THRESHOLDS["dependent_above"]:
        text = DEPENDENT
    found = Verdict(text)
    found.numbers = {"dependence": value, "low": low, "high": high, "head": head, "images": images, **THRESHOLDS}
    return found
