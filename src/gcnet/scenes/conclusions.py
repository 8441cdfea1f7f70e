"""What the demo's numbers mean, in words that the numbers choose: where they show nothing, the words say that."""

from __future__ import annotations

from gcnet.analysis.comparison import Comparison, Row, paired
from gcnet.analysis.intervals import Mean

GLOBAL = ("se", "snl", "gc")  # one context for all positions
CLEAR = 0.05  # a clear difference in balanced accuracy; with several seeds its interval must exclude zero as well
EQUAL = 0.03  # and one up to which two blocks count as equal here


def conclusions(cue: Comparison, mirror: Comparison) -> dict[str, str]:
    """One sentence each for "cue", "mirror" and "cost"."""
    return {"cue": _of_cue(cue), "mirror": _of_mirror(mirror), "cost": _of_cost(cue)}


def meaning(cue: Comparison, mirror: Comparison) -> str:
    """The sentence at the head of the report."""
    shared, own = shared_context_suffices(cue), own_context_needed(mirror)
    if shared and own:
        text = (
            "Where one context serves the whole picture, a block that computes it once (SE, SNL, GC) gives all there "
            "is to gain; where every position needs a context of its own, only the non-local block gives it."
        )
    elif shared:
        text = (
            "One shared context was enough where it should be, but these numbers do not show that the non-local block "
            "gains anything where every position needs a context of its own."
        )
    elif own:
        text = (
            "The non-local block was clearly ahead where every position needs a context of its own, but these numbers "
            "do not show that one shared context is enough where it should be."
        )
    else:
        text = "These numbers do not show what context blocks are for; longer training (without --quick) may."
    if min(len(row.accuracies) for comparison in (cue, mirror) for row in comparison.rows) < 2:
        text += " (One seed: an observation, without intervals.)"
    return text


def shared_context_suffices(cue: Comparison) -> bool:
    """Every global block clearly beats no block, and NL is not ahead of the best of them."""
    rows = [cue.row(name) for name in GLOBAL]
    ahead = _ahead(cue.row("nl"), _best(rows))
    return all(_clear(row.difference) for row in rows) and ahead is not None and ahead.value <= EQUAL


def own_context_needed(mirror: Comparison) -> bool:
    """NL clearly beats every global block."""
    return all(_clear(_ahead(mirror.row("nl"), mirror.row(name))) for name in GLOBAL)


def _of_cue(cue: Comparison) -> str:
    rows = [cue.row(name) for name in GLOBAL]
    none, nl, best = cue.row("none"), cue.row("nl"), _best(rows)
    helped = [row for row in rows if _clear(row.difference)]
    unhelped = [row for row in rows if row not in helped]
    scores = ", ".join(_score(row) for row in rows)
    if not helped or best is None:
        return f"None of the global blocks ({scores}) is clearly better than no block ({_percent(none)}) here."
    text = f"With one context for all cells: {scores}; without a block: {_percent(none)}."
    if unhelped:
        text += f" Not clearly better than no block: {', '.join(row.label.upper() for row in unhelped)}."
    ahead = _ahead(nl, best)
    if ahead is None:
        return text
    if ahead.value > EQUAL:
        return f"{text} A context for each cell is better still: {_score(nl)}."
    return f"{text} A context for each cell adds nothing to that: {_score(nl)}."


def _of_mirror(mirror: Comparison) -> str:
    rows = [mirror.row(name) for name in GLOBAL]
    none, nl, best = mirror.row("none"), mirror.row("nl"), _best(rows)
    if best is None or nl.accuracy is None:
        return "Too few runs were finished to say anything."
    if own_context_needed(mirror):
        return (
            f"Only the block with a context for each cell can pick the partner: {_score(nl)}. The best with one "
            f"context for all cells is {_score(best)}; without a block: {_percent(none)}."
        )
    return (
        f"A context for each cell ({_score(nl)}) is not clearly better than one for all cells ({_score(best)}) here; "
        f"without a block: {_percent(none)}."
    )


def _of_cost(cue: Comparison) -> str:
    plain = cue.rows[0].cost
    added = [
        f"{row.label.upper()} {row.added_parameters:,} parameters and {100 * row.added_macs / plain.macs:.1f} % MACs"
        for row in (cue.row("gc"), cue.row("nl"))
    ]
    return f"Two blocks add to the model: {', '.join(added)}; on larger maps the share of NL grows."


def _clear(difference: Mean | None) -> bool:
    if difference is None or difference.value < CLEAR:
        return False
    return difference.half_width is None or difference.value > difference.half_width


def _ahead(row: Row, other: Row | None) -> Mean | None:
    return None if other is None else paired(row.accuracies, other.accuracies)


def _best(rows: list[Row]) -> Row | None:
    finished = [row for row in rows if row.accuracy is not None]
    return max(finished, key=lambda row: row.accuracy.value if row.accuracy else 0.0, default=None)


def _score(row: Row) -> str:
    return f"{row.label.upper()} {_percent(row)}"


def _percent(row: Row) -> str:
    return f"{100 * row.accuracy.value:.1f} %" if row.accuracy else "unfinished"
