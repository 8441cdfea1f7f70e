"""Tables, figure, thresholds and words of `query_dependence.py`, all computed from the rows of its results file."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gcnet.analysis.intervals import Mean, mean_interval
from gcnet.checkpoints.atomic import write_text
from gcnet.recipes.conclusions import EQUAL
from query_dependence_figure import Curve, Dot, draw
from rows import as_table
from thresholds import Score, Thresholds, Trial, calibrate, leave_one_seed_out, score

Row = dict[str, Any]

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- results: begin, written by benchmarks/query_dependence.py --docs -->", "<!-- results: end -->"
SHARES = {"cue": 0.0, "dial-1": 0.25, "dial-2": 0.5, "dial-3": 0.75, "mirror": 1.0}  # of rows that need a partner
ONE_CONTEXT = ("se", "snl", "gc")  # the models with one for all positions
# The models with a map for each query, and its form.
QUERIED = {
    "nl": "softmax",
    "nl-gaussian": "gaussian",
    "nl-dot_product": "dot_product",
    "nl-concatenation": "concatenation",
    "dnl": "disentangled",
}
MORE = "Means over the runs of the block of each model that depends more on its query."
DEPENDENCE = "`att_cos`, or half of `att_spread` for the two forms without a softmax."
INTERVALS = "Means over seeds ± half of the 95 % interval by Student's t."


def write_report(rows: Sequence[Row], folder: Path) -> Path:
    """All tables, as `query_dependence.md` beside the results."""
    path = folder / "query_dependence.md"
    title = "# Does attention depend on its query? The controlled experiment"
    write_text(path, f"{title}\n\n{len(rows)} runs of {rows[0]['epochs']} epochs.\n\n{sections(rows)}\n")
    return path


def write_docs(rows: Sequence[Row], docs: Path = DOCS) -> list[Path]:
    """The figure, and the part of the page between the two marks."""
    page = docs / "query-dependence.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} lacks the two lines {BEGIN!r} and {END!r}, between which the results go")
    band = (thresholds_of(rows) or {}).get("softmax")
    pictures = draw(curves(rows), dots(rows), band, docs / "figures" / "query-dependence")
    caption = (
        "The dial from *cue* to *mirror*, digits. Left: how much more accurate than GC with the same seed. Middle: "
        "dependence of the more dependent of the two blocks. Bars: 95 % intervals over seeds. Right: every single run, "
        "its gain over the best of SE, SNL and GC with the same seed; above the dashed line, "
        f"{100 * EQUAL:.0f} points, it needs its queries. Crosses are *twice*; the grey band lies between the "
        "thresholds of the softmax form."
    )
    figure = f"![Accuracy gap and dependence against the share of rows that need a partner](figures/{pictures[0].name})"
    body = f"{BEGIN}\n\n{words(rows)}\n\n{figure}\n\n{caption}\n\n{sections(rows)}\n\n{END}"
    write_text(page, head + body + tail)
    return [page, *pictures]


def words(rows: Sequence[Row]) -> str:
    """What the numbers say, with the numbers."""
    said = []
    for task, share in (("cue", "one context serves all cells"), ("mirror", "every cell needs its partner")):
        gap = mean_interval(list(gaps(rows, "digits", task, "nl").values()))
        own = mean_interval([dependence(row) for row in select(rows, "digits", task, "nl")])
        said.append(
            f"In *{task}*, where {share}, the non-local block is {_points(gap)} points above GC, and its maps "
            f"depend on the query by {_plain(own)} (0: one map for all; 0.5: nothing in common)."
        )
    gap = mean_interval(list(gaps(rows, "digits", "twice", "nl").values()))
    own = mean_interval([dependence(row) for row in select(rows, "digits", "twice", "nl")])
    said.append(
        f"In *twice*, which sounds like a comparison of pairs but is solved by one context, the gap is {_points(gap)} "
        f"points, and the dependence {_plain(own)}."
    )
    return " ".join(said)


def sections(rows: Sequence[Row]) -> str:
    """All tables that the rows suffice for."""
    parts: list[tuple[str, str, str]] = []
    for items in dict.fromkeys(row["items"] for row in rows):
        own = [row for row in rows if row["items"] == items]
        seeds, models = len({row["seed"] for row in own}), {row["model"] for row in own}
        name = items.capitalize()
        parts += [
            (f"{name}: accuracy", f"Balanced accuracy on test scenes, %; {seeds} seeds.", accuracy_table(own)),
            (f"{name}: gain over GC", "Points, paired by seed.", gap_table(own)),
            (
                f"{name}: gain over the best model with one context",
                f"Points, paired by seed; the best of {', '.join(one for one in ONE_CONTEXT if one in models)}.",
                gap_table([row for row in own if row["model"] in (*ONE_CONTEXT, *QUERIED)], ONE_CONTEXT),
            ),
            (f"{name}: dependence on the query", f"{MORE} {DEPENDENCE}", dependence_table(own)),
        ]
    parts += [
        ("The two kinds of cells on the dial", "Digits, %: judged by the cue / by the partner.", parts_table(rows)),
        ("The paper's distances", f"Digits. {MORE}", distance_table(rows)),
        ("Thresholds of the verdict", f"Dependence: {DEPENDENCE}", thresholds_text(rows)),
    ]
    return "\n\n".join([*(f"### {title}\n\n{about}\n\n{content}" for title, about, content in parts), INTERVALS])


def select(rows: Iterable[Row], items: str, task: str, model: str) -> list[Row]:
    return [row for row in rows if (row["items"], row["task"], row["model"]) == (items, task, model)]


def most_dependent(row: Row) -> Row:
    """The block whose queries matter most: one such block is enough for a model to need it."""
    return max(row["blocks"], key=lambda block: block["dependence"])


def dependence(row: Row) -> float:
    return most_dependent(row)["dependence"]


def gaps(rows: Sequence[Row], items: str, task: str, model: str, base: Sequence[str] = ("gc",)) -> dict[int, float]:
    """Seed -> accuracy minus that of `base`, or of the best of several, with the same seed."""
    accuracies: dict[int, float] = {}
    for row in (row for name in base for row in select(rows, items, task, name)):
        accuracies[row["seed"]] = max(row["accuracy"], accuracies.get(row["seed"], 0.0))
    own = select(rows, items, task, model)
    return {row["seed"]: row["accuracy"] - accuracies[row["seed"]] for row in own if row["seed"] in accuracies}


def trials(rows: Sequence[Row], items: str, tasks: Iterable[str]) -> list[Trial]:
    """Every run of a model with queries, with whether every one with one context and that seed is clearly worse."""
    found = []
    for task in tasks:
        for model in QUERIED:
            gap = gaps(rows, items, task, model, ONE_CONTEXT)
            for row in select(rows, items, task, model):
                if row["seed"] in gap:
                    low, high = (max(block[end] for block in row["blocks"]) for end in ("low", "high"))
                    needed = gap[row["seed"]] > EQUAL
                    found.append(Trial(QUERIED[model], dependence(row), low, high, needed, row["seed"]))
    return found


def thresholds_of(rows: Sequence[Row]) -> dict[str, Thresholds] | None:
    """By form, calibrated on the dial of digits; None while one of the two kinds of runs is missing."""
    try:
        return calibrate(trials(rows, "digits", SHARES))
    except ValueError:
        return None


def thresholds_text(rows: Sequence[Row]) -> str:
    found = thresholds_of(rows)
    if found is None:
        return "Too few runs: runs that need their queries, and of each form runs that do not, are both needed."
    dial = trials(rows, "digits", SHARES)
    lines = [
        f"Calibrated on {len(dial)} runs on the dial of digits, of which {sum(t.needed for t in dial)} are more than "
        f"{100 * EQUAL:.0f} points better than the best model with one context and the same seed, and so need their "
        "queries."
    ]
    cells = []
    for form, limits in found.items():
        own = [trial.needed for trial in dial if trial.form == form]
        between = "a third of the gap" if limits.separated else "the overlap"
        numbers = f"{limits.independent_below:.3f} | {limits.dependent_above:.3f} | {between}"
        cells.append(f"{form} | {len(own) - sum(own)} | {sum(own)} | {numbers}")
    lines.append(
        as_table("form | runs without need | with need | independent below | dependent above | undecided", cells)
    )
    groups = {
        "digits, dial": ("digits", tuple(SHARES)),
        "digits, twice": ("digits", ("twice",)),
        "fashion, dial": ("fashion", tuple(SHARES)),
        "fashion, twice": ("fashion", ("twice",)),
    }
    judged: dict[str, Score] = {}
    try:
        judged["digits, dial, each seed by the thresholds of the others"] = leave_one_seed_out(dial)
    except ValueError:
        lines.append("Too few seeds to judge each by the others.")
    for label, (items, tasks) in groups.items():
        own_trials = trials(rows, items, tasks)
        if own_trials:
            judged[label] = score(own_trials, found)
        for form in found:
            of_form = [trial for trial in own_trials if trial.form == form]
            if of_form:
                judged[f"{label}: {form}"] = score(of_form, found)
    cells = [f"{label} | {s.right} | {s.wrong} | {s.undecided}" for label, s in judged.items()]
    return "\n\n".join([*lines, as_table("runs | right | wrong | undecided", cells)])


def accuracy_table(rows: Sequence[Row]) -> str:
    return _by_task(rows, [row["model"] for row in rows], lambda own, _: _percent([row["accuracy"] for row in own]))


def gap_table(rows: Sequence[Row], base: Sequence[str] = ("gc",)) -> str:
    models = [row["model"] for row in rows if row["model"] not in base]

    def cell(own: list[Row], first: Row) -> str:
        found = list(gaps(rows, first["items"], first["task"], first["model"], base).values())
        return _points(mean_interval(found)) if found else ""

    return _by_task(rows, models, cell)


def dependence_table(rows: Sequence[Row]) -> str:
    models = [row["model"] for row in rows if row["model"] in QUERIED]
    return _by_task(rows, models, lambda own, _: _plain(mean_interval([dependence(row) for row in own])))


def parts_table(rows: Sequence[Row]) -> str:
    digits = [row for row in rows if row["items"] == "digits" and "mirror_accuracy" in row]

    def cell(own: list[Row], _: Row) -> str:
        return " / ".join(_percent([row[f"{part}_accuracy"] for row in own]) for part in ("cue", "mirror"))

    return _by_task(digits, [row["model"] for row in digits], cell)


def distance_table(rows: Sequence[Row]) -> str:
    lines = []
    columns = ("input_cos", "output_cos", "output_cos_no_bias", "att_cos", "att_jsd", "att_spread", "unary_share")
    for task in ("cue", "mirror", "twice"):
        for model in QUERIED:
            blocks = [most_dependent(row) for row in select(rows, "digits", task, model)]
            if blocks:
                cells = [_mean(block[name] for block in blocks) for name in columns]
                cells.append(_mean(_between(block) for block in blocks))
                lines.append(" | ".join([task, model, *cells]))
    return as_table("task | model | " + " | ".join(columns) + " | share of the queries' variance between images", lines)


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Gap and dependence along the dial of digits, for each model with queries, and for SNL, which has none."""
    found = []
    for model in ("snl", *QUERIED):
        own = {share: select(rows, "digits", task, model) for task, share in SHARES.items()}
        gap = {share: list(gaps(rows, "digits", task, model).values()) for task, share in SHARES.items()}
        shares = [share for share in own if own[share] and gap[share]]
        dependences = [mean_interval([dependence(row) for row in own[share]]) for share in shares]
        gains = [mean_interval(gap[share]) for share in shares]
        found.append(Curve(model, shares, gains, dependences if model in QUERIED else []))
    return found


def dots(rows: Sequence[Row]) -> list[Dot]:
    """Every run of digits of a model with queries: its dependence and its gain over all with one context."""
    return [
        Dot(model, dependence(row), gap[row["seed"]], task == "twice")
        for task in (*SHARES, "twice")
        for model in QUERIED
        for gap in [gaps(rows, "digits", task, model, ONE_CONTEXT)]
        for row in select(rows, "digits", task, model)
        if row["seed"] in gap
    ]


def _between(block: Row) -> float | None:
    within, between = block["query_within"], block["query_between"]
    return None if within is None or not within + (between or 0) else (between or 0) / (within + (between or 0))


def _by_task(rows: Sequence[Row], models: Iterable[str], cell: Any) -> str:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = []
    for model in dict.fromkeys(models):
        cells = []
        for task in tasks:
            own = [row for row in rows if (row["task"], row["model"]) == (task, model)]
            cells.append(cell(own, own[0]) if own else "")
        lines.append(" | ".join([model, *cells]))
    return as_table(" | ".join(["model", *tasks]), lines)


def _percent(values: Sequence[float]) -> str:
    mean = mean_interval(values)
    return f"{100 * mean.value:.1f}" + ("" if mean.half_width is None else f" ± {100 * mean.half_width:.1f}")


def _points(mean: Mean) -> str:
    return f"{100 * mean.value:+.1f}" + ("" if mean.half_width is None else f" ± {100 * mean.half_width:.1f}")


def _plain(mean: Mean) -> str:
    return f"{mean.value:.3f}" + ("" if mean.half_width is None else f" ± {mean.half_width:.3f}")


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.3f}" if known else ""
