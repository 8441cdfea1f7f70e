"""Tables, figure, thresholds and words of `query_dependence.py`, all computed from the rows of its results file."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gcnet.analysis.intervals import Mean, mean_interval
from gcnet.files.atomic import write_text
from gcnet.scenes.conclusions import EQUAL
from query_dependence_figure import Curve, Dot, draw
from rows import as_table
from thresholds import Score, Thresholds, Trial, calibrate, leave_one_seed_out, score

Row = dict[str, Any]

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- results: begin, written by benchmarks/query_dependence.py --docs -->", "<!-- results: end -->"
SHARES = {"cue": 0.0, "dial-1": 0.25, "dial-2": 0.5, "dial-3": 0.75, "mirror": 1.0}  # of rows that need a partner
ONE_CONTEXT = ("se", "snl", "gc")  # the models with one for all positions
QUERIED = ("nl", "nl-gaussian", "nl-dot_product", "nl-concatenation", "dnl")  # the models with a map for each query
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
    pictures = draw(curves(rows), dots(rows), thresholds_of(rows), docs / "figures" / "query-dependence")
    caption = (
        "Digits. Above, the dial from *cue* to *mirror*: how much more accurate than GC with the same seed, and the "
        "dependence of the more dependent of the two blocks; bars are 95 % intervals over seeds. Below, every single "
        "run, crosses are *twice*: what it loses when all its queries get one map, with the thresholds of the verdict "
        "(grey: undecided), and how much better it is than the best of SE, SNL and GC with the same seed. Dashed: "
        f"{100 * EQUAL:.0f} points."
    )
    figure = f"![Accuracy gap and dependence against the share of rows that need a partner](figures/{pictures[0].name})"
    body = f"{BEGIN}\n\n{words(rows)}\n\n{figure}\n\n{caption}\n\n{sections(rows)}\n\n{END}"
    write_text(page, head + body + tail)
    return [page, *pictures]


def words(rows: Sequence[Row]) -> str:
    """What the numbers say, with the numbers."""
    said = ["Dependence is 0 where one map serves all queries, and 0.5 where no two maps have anything in common."]
    for task, what in (
        ("cue", "where one context serves all cells"),
        ("mirror", "where every cell needs its partner"),
        ("twice", "which sounds like a comparison of pairs but is solved by one context"),
    ):
        own = select(rows, "digits", task, "nl")
        gap = mean_interval(list(gaps(rows, "digits", task, "nl").values()))
        dependences, losses = ([figure(row) for row in own] for figure in (dependence, lost))
        said.append(
            f"In *{task}*, {what}, the non-local block is {_points(gap)} points above GC, its maps depend on the query "
            f"by {_plain(mean_interval(dependences))}, and one map in their place changes the accuracy by "
            f"{_points(mean_interval([-loss for loss in losses]))} points."
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
            (
                f"{name}: with one map for all queries",
                "Change of the accuracy by `gcnet.simplify(..., max_error=inf)`, points: all blocks replaced in closed "
                "form, no training.",
                loss_table(own),
            ),
            (
                f"{name}: queries that are used, and queries that are worth something",
                f"Runs that lose more than {100 * EQUAL:.0f} points by one map for all queries / runs that are that "
                "much better than the best model with one context.",
                use_table(own),
            ),
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
    """The block that depends most: one such block is enough for a model to use its queries."""
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


def lost(row: Row) -> float:
    """What accuracy loses when each image gets one map for all its queries, in closed form."""
    return row["accuracy"] - row["one_map_accuracy"]


def trials(rows: Sequence[Row], items: str, tasks: Iterable[str]) -> list[Trial]:
    """Every run of a model with queries, with whether it clearly loses by one map for all of them."""
    found = []
    for row in (row for task in tasks for model in QUERIED for row in select(rows, items, task, model)):
        low, high = (max(block[end] for block in row["blocks"]) for end in ("low", "high"))
        found.append(Trial(dependence(row), low, high, lost(row) > EQUAL, row["seed"]))
    return found


def thresholds_of(rows: Sequence[Row]) -> Thresholds | None:
    """Calibrated on the dial of digits; None while one of the two kinds of runs is missing."""
    try:
        return calibrate(trials(rows, "digits", SHARES))
    except ValueError:
        return None


def thresholds_text(rows: Sequence[Row]) -> str:
    found = thresholds_of(rows)
    if found is None:
        return "Too few runs: runs that use their queries, and runs that do not, are both needed."
    dial = trials(rows, "digits", SHARES)
    between = "the middle third of the gap between the two kinds" if found.separated else "the overlap of the two kinds"
    lines = [
        f"Calibrated on {len(dial)} runs on the dial of digits, of which {sum(t.used for t in dial)} lose more than "
        f"{100 * EQUAL:.0f} points by one map for all queries and so use them: independent below "
        f"{found.independent_below:.3f}, dependent above {found.dependent_above:.3f}, undecided {between}."
    ]
    judged: dict[str, Score] = {}
    try:
        judged["digits, dial, each seed by the thresholds of the others"] = leave_one_seed_out(dial)
    except ValueError:
        lines.append("Too few seeds to judge each by the others.")
    groups = {"dial": tuple(SHARES), "twice": ("twice",)}
    for items, (name, tasks) in itertools.product(("digits", "fashion"), groups.items()):
        for model in (None, *QUERIED):
            own = trials([row for row in rows if model in (None, row["model"])], items, tasks)
            if own:
                judged[f"{items}, {name}" + (f": {model}" if model else "")] = score(own, found)
    cells = [f"{label} | {s.right} | {s.wrong} | {s.undecided}" for label, s in judged.items()]
    return "\n\n".join([*lines, as_table("runs | right | wrong | undecided", cells)])


def accuracy_table(rows: Sequence[Row]) -> str:
    return _by_task(rows, lambda own: _percent([row["accuracy"] for row in own]))


def gap_table(rows: Sequence[Row], base: Sequence[str] = ("gc",)) -> str:
    def cell(own: list[Row]) -> str:
        found = list(gaps(rows, own[0]["items"], own[0]["task"], own[0]["model"], base).values())
        return _points(mean_interval(found)) if found else ""

    return _by_task([row for row in rows if row["model"] not in base], cell)


def loss_table(rows: Sequence[Row]) -> str:
    return _by_task(_queried(rows), lambda own: _points(mean_interval([-lost(row) for row in own])))


def use_table(rows: Sequence[Row]) -> str:
    def cell(own: list[Row]) -> str:
        gain = gaps(rows, own[0]["items"], own[0]["task"], own[0]["model"], ONE_CONTEXT)
        used = sum(lost(row) > EQUAL for row in own)
        return f"{used} / {sum(value > EQUAL for value in gain.values())} of {len(own)}"

    return _by_task(_queried(rows), cell)


def dependence_table(rows: Sequence[Row]) -> str:
    return _by_task(_queried(rows), lambda own: _plain(mean_interval([dependence(row) for row in own])))


def parts_table(rows: Sequence[Row]) -> str:
    digits = [row for row in rows if row["items"] == "digits" and "mirror_accuracy" in row]

    def cell(own: list[Row]) -> str:
        return " / ".join(_percent([row[f"{part}_accuracy"] for row in own]) for part in ("cue", "mirror"))

    return _by_task(digits, cell)


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
        queried = shares if model in QUERIED else []
        dependences = [mean_interval([dependence(row) for row in own[share]]) for share in queried]
        found.append(Curve(model, shares, [mean_interval(gap[share]) for share in shares], dependences))
    return found


def dots(rows: Sequence[Row]) -> list[Dot]:
    """Every run of digits of a model with queries."""
    return [
        Dot(model, dependence(row), lost(row), gain[row["seed"]], task == "twice")
        for task in (*SHARES, "twice")
        for model in QUERIED
        for gain in [gaps(rows, "digits", task, model, ONE_CONTEXT)]
        for row in select(rows, "digits", task, model)
        if row["seed"] in gain
    ]


def _between(block: Row) -> float | None:
    within, between = block["query_within"], block["query_between"]
    return None if within is None or not within + (between or 0) else (between or 0) / (within + (between or 0))


def _queried(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["model"] in QUERIED]


def _by_task(rows: Sequence[Row], cell: Callable[[list[Row]], str]) -> str:
    """A line for each model, a column for each task; `cell` makes the text of the runs of both."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = []
        for task in tasks:
            own = [row for row in rows if (row["task"], row["model"]) == (task, model)]
            cells.append(cell(own) if own else "")
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
