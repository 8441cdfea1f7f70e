"""`gcnet compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcnet.cli.options import BLOCK_PANEL, Stages, Weights, named_values
from gcnet.tasks.settings import Settings, all_fields

if TYPE_CHECKING:
    from gcnet.analysis.comparison import Comparison

_DEFAULTS: dict[str, Any] = {"task": "classify"} | {name: one.default for name, one in all_fields().items()}
_WHAT, _RUN = "What is compared", "The runs"
_OTHERS = tuple(name for name in _DEFAULTS if name not in ("data", "block", "block_options", "name", "runs"))


def compare(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="Images in a folder or CSV; COCO or VOC; scenes: cue, dial-1 to dial-3, mirror, twice, cue/fashion"
        ),
    ],
    task: Annotated[str, typer.Option(help="classify, detect, instances or scenes.")] = _DEFAULTS["task"],
    model: Annotated[str, typer.Option(help="A torchvision classifier, timm/NAME, a detector, or scenes.")] = _DEFAULTS[
        "model"
    ],
    weights: Weights = None,
    blocks: Annotated[
        str, typer.Option(help="Names from `gcnet blocks`; none: no block.", rich_help_panel=_WHAT)
    ] = "none,se,snl,gc,nl",
    axis: Annotated[
        str | None,
        typer.Option(
            help="Instead of blocks an ablation of the paper, with its figures beside yours: block, position, stages, "
            "bottleneck, reduction or pool-fusion. Or at, where, or an option of --block.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            help="Values on the axis, such as 4,8,16 or c4,c3+c4+c5; else the paper's.", rich_help_panel=_WHAT
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.", rich_help_panel=_WHAT)] = 3,
    block: Annotated[
        str | None, typer.Option(help="The block that --axis varies; else gc.", rich_help_panel=BLOCK_PANEL)
    ] = None,
    stages: Stages = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for every block, such as reduction=4; may be repeated.", rich_help_panel=BLOCK_PANEL
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Detectors: 12.")] = _DEFAULTS["epochs"],
    batch_size: Annotated[int, typer.Option(help="Detectors: 2.")] = _DEFAULTS["batch_size"],
    image_size: Annotated[int | None, typer.Option(help="Pixels; else what the model was published with.")] = None,
    lr: Annotated[
        float, typer.Option(help="Highest learning rate. Detectors: 0.02 for 16 images in a step.")
    ] = _DEFAULTS["lr"],
    seed: Annotated[int, typer.Option(help="The first seed.", rich_help_panel=_RUN)] = _DEFAULTS["seed"],
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for any other setting of `gcnet train`, such as schedule=one_cycle; may be repeated.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep images in memory.", rich_help_panel=_RUN)] = _DEFAULTS["cache"],
    workers: Annotated[int, typer.Option(help="Image readers.", rich_help_panel=_RUN)] = _DEFAULTS["workers"],
    name: Annotated[str, typer.Option(help="All runs are in the folder RUNS/NAME.", rich_help_panel=_RUN)] = "compare",
    runs: Annotated[Path, typer.Option(rich_help_panel=_RUN)] = _DEFAULTS["runs"],
) -> None:
    """Train the same model with several blocks and seeds; table, CSV, pictures and an HTML page of gains and costs.

    Interrupted, the same command goes on where it was; finished runs are not repeated.

    gcnet compare --data DIR --model resnet18 --blocks none,se,gc --seeds 3

    gcnet compare --data DIR --model resnet50 --axis reduction

    gcnet compare --data DIR --model resnet50 --block gc --axis hidden --values 16,64
    """
    given = {
        key: value
        for key, value in context.params.items()
        if key in (*_OTHERS, "data", "runs") and context.get_parameter_source(key).name != "DEFAULT"  # type: ignore[union-attr]
    }
    given |= _settings(setting or [])
    if "stages" in given:
        given["stages"] = tuple(_split(stages or ""))
    chosen_blocks = None if context.get_parameter_source("blocks").name == "DEFAULT" else _split(blocks)  # type: ignore[union-attr]
    chosen: list[Any] | None = None if values is None else _split(values)
    if chosen is not None and axis != "block":  # there "none" is the name of a row
        chosen = [_value(text) for text in chosen]
    if axis in (None, "block") and block is not None:
        raise typer.BadParameter("goes with --axis; --blocks names the blocks to compare", param_hint="--block")
    given |= {"block": block, "block_options": named_values(option or [])}
    shared = Settings(**given)

    from gcnet.recipes.comparison import compare as run

    try:
        comparison = run(shared, blocks=chosen_blocks, axis=axis, values=chosen, seeds=seeds, name=name)
    except KeyboardInterrupt:
        typer.echo("gcnet: interrupted; the same command goes on where it was", err=True)
        raise typer.Exit(1) from None
    say_comparison(comparison)
    typer.echo(f"\n{comparison.folder}: report.html, comparison.csv, runs.csv, accuracy.png, time.png, and the runs")
    if comparison.failures:
        raise typer.Exit(1)


def say_comparison(comparison: Comparison, title: str | None = None) -> None:
    """The table and the findings on the terminal."""
    from rich.console import Console
    from rich.table import Table

    from gcnet.analysis.comparison import findings
    from gcnet.report.comparison import comparison_table
    from gcnet.report.paper import paper_lead, paper_sources, paper_table

    def shown(content: Any, title: str | None) -> Table:
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False
        )
        for index, column in enumerate(content.columns):
            table.add_column(column, justify="left" if index == 0 else "right", style="bold" if index == 0 else None)
        for row in content.rows:
            table.add_row(*row)
        return table

    console = Console(highlight=False, markup=False)
    console.print()
    console.print(shown(comparison_table(comparison), title))
    for sentence in findings(comparison):
        console.print(sentence)
    if comparison.published:
        console.print()
        console.print(shown(paper_table(comparison), "beside the paper"))
        console.print(paper_lead(comparison))
        console.print(paper_sources(comparison), style="dim")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _value(text: str) -> Any:
    return named_values([f"value={text}"])["value"]


def _settings(texts: list[str]) -> dict[str, Any]:
    values = named_values(texts)
    wrong = next((name for name in values if name not in _OTHERS), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is no setting; there are {', '.join(_OTHERS)}", param_hint="--setting")
    return values
