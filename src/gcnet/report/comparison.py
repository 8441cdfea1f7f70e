"""One comparison on the terminal, as the section of a report that it fills, and as a report alone."""

from __future__ import annotations

from functools import lru_cache

import rich.table
from rich.console import Console

from gcnet.analysis.comparison import Comparison, Row, findings, run_table
from gcnet.files.atomic import write_atomically, write_text
from gcnet.report.page import Figure, Section, Table, write_page
from gcnet.report.paper import paper_section, paper_table
from gcnet.report.plots import accuracy_plot, draw, time_plot
from gcnet.report.terminal import plain_table
from gcnet.report.texts import cell, milliseconds, percent, ratio, scaled, to_csv
from gcnet.tasks.table import spec
from gcnet.version import hardware, versions


def save_report(comparison: Comparison) -> None:
    """Write the tables, `accuracy.png`, `time.png` and `report.html` into the comparison's folder."""
    for name, rows in (("comparison.csv", comparison.table), ("runs.csv", run_table(comparison))):
        write_text(comparison.folder / name, to_csv(rows))
    figures = comparison_figures(comparison)
    for name, figure in zip(("accuracy.png", "time.png"), figures, strict=True):
        write_atomically(comparison.folder / name, lambda file, png=figure.light: file.write(png))
    settings = comparison.settings
    sections = [comparison_section(comparison, "What came out", figures, sentences=findings(comparison))]
    if comparison.published:
        sections.append(paper_section(comparison))
    write_page(
        comparison.page,
        title=f"{settings.model.name} on {settings.data.path}: {len(comparison.rows)} variants compared",
        lead=_lead(comparison),
        sections=sections,
        facts=facts(comparison),
    )


def comparison_section(comparison: Comparison, title: str, figures: list[Figure], *, sentences: list[str]) -> Section:
    """Sentences, table, pictures and runs of one comparison."""
    runs = run_table(comparison)
    columns = list(dict.fromkeys(name for run in runs for name in run if name != "folder"))
    cells = [[cell(run.get(name)) for name in columns] for run in runs]
    return Section(
        title=title,
        sentences=sentences,
        table=comparison_table(comparison),
        notes=[_reading(comparison)],
        figures=figures,
        details=Table([name.replace("_", " ") for name in columns], cells),
        details_title=f"All {len(runs)} runs",
    )


def comparison_table(comparison: Comparison) -> Table:
    """The table that is shown, on the page and in the terminal."""
    first = comparison.rows[0].label
    columns = [
        "variant",
        f"{comparison.metric.replace('_', ' ')}, %",
        f"against {first}",
        "added parameters",
        "added MACs",
        "training step",
        "inference",
    ]
    return Table(columns, [_row(row, index) for index, row in enumerate(comparison.rows)], shade=(0,))


@lru_cache(maxsize=4)  # they go into the comparison's own report and into the demo's
def comparison_figures(comparison: Comparison) -> list[Figure]:
    """Accuracy with intervals, and times as ratios."""
    rows = [row for row in comparison.rows if row.accuracy is not None]
    accuracies = {row.label: list(row.accuracies.values()) for row in rows}
    means = {row.label: row.accuracy for row in rows if row.accuracy is not None}
    metric = comparison.metric.replace("_", " ")
    accuracy = draw(lambda theme: accuracy_plot(theme, accuracies, means, metric=metric))
    training = {row.label: row.cost.training for row in comparison.rows}
    inference = {row.label: row.cost.inference for row in comparison.rows}
    time = draw(lambda theme: time_plot(theme, training, inference))
    several = any(mean.count > 1 for mean in means.values())
    key = "Diamond: mean; dots: seeds; bar: 95 % interval of the mean." if several else "One seed each."
    said = "; ".join(f"{label} {percent(mean)}" for label, mean in means.items())
    times = "; ".join(f"{label} {ratio(training[label])} and {ratio(inference[label])}" for label in training)
    return [
        Figure(key, f"{metric}, percent: {said}", *accuracy),
        Figure(
            "Median time of one batch, all variants in turn in the same process; whiskers: 95 % interval.",
            f"training step and inference as multiples of {comparison.rows[0].label}: {times}",
            *time,
        ),
    ]


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """Where, with what and how it was measured."""
    settings, machine = comparison.settings, hardware()
    model, how = settings.model, settings.optimisation
    where = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
    cost = comparison.rows[0].cost
    return [
        ("model", model.name + (f", weights {model.weights}" if model.weights else "")),
        ("data", settings.data.path),
        (
            "training",
            f"{how.epochs} epochs, batch {settings.data.batch_size}, {how.optimizer}, learning rate "
            f"{how.lr:g} ({how.schedule.replace('_', ' ')}), weight decay {how.weight_decay:g}",
        ),
        ("selection", _selection(comparison)),
        ("intervals", "95 %: of means by Student's t over seeds, differences paired by seed; of medians by ranks"),
        (
            "timing",
            f"{cost.training.seconds.count} and {cost.inference.seconds.count} interleaved rounds, forward and "
            "backward pass without the optimiser's step; other programs running meanwhile widen the intervals",
        ),
        ("machine", where),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
        ("folder", str(comparison.folder)),
    ]


def _lead(comparison: Comparison) -> str:
    seeds = max(len(row.accuracies) for row in comparison.rows)
    metric = comparison.metric.replace("_", " ")
    return (
        f"{metric[:1].upper()}{metric[1:]} on the {_part(comparison)} part, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}, {comparison.settings.optimisation.epochs} epochs each."
    )


def _part(comparison: Comparison) -> str:
    return "validation" if comparison.split == "val" else comparison.split


def _selection(comparison: Comparison) -> str:
    if comparison.split == "test":
        return "the epoch on the validation part; the test part was evaluated once per run, with that epoch"
    return "the data have no test part: epoch and figures come from the same validation part, so they are optimistic"


def _reading(comparison: Comparison) -> str:
    if all(len(row.accuracies) <= 1 for row in comparison.rows):
        spread = "One seed: no interval can be given."
    else:
        spread = "± is the 95 % interval over seeds; differences are paired by seed."
    first = comparison.rows[0].label
    counted = spec(comparison.settings.task).counted
    return f"{spread} MACs are those of {counted}; times are multiples of {first}'s, measured side by side."


def _row(row: Row, index: int) -> list[str]:
    return [
        row.label,
        percent(row.accuracy) if row.accuracy else "no run finished",
        percent(row.difference, sign="+") if row.difference else "",
        f"{row.cost.parameters:,} in all" if index == 0 else f"{row.added_parameters:+,}",
        f"{scaled(row.cost.macs)} in all" if index == 0 else f"+{scaled(row.added_macs)}",
        milliseconds(row.cost.training) if index == 0 else ratio(row.cost.training),
        milliseconds(row.cost.inference) if index == 0 else ratio(row.cost.inference),
    ]


def say_comparison(comparison: Comparison, title: str | None = None) -> None:
    """The table and the findings on the terminal."""
    console = Console(highlight=False, markup=False)
    console.print()
    console.print(_shown(comparison_table(comparison), title))
    for sentence in findings(comparison):
        console.print(sentence)
    if comparison.published:
        console.print()
        console.print(_shown(paper_table(comparison), "beside the paper"))
        beside = paper_section(comparison)
        console.print(beside.lead)
        console.print(*beside.notes, style="dim")


def _shown(content: Table, title: str | None) -> rich.table.Table:
    table = plain_table(content.columns, content.rows, wrap=True)
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    table.header_style, table.columns[0].style = "dim", "bold"
    return table
