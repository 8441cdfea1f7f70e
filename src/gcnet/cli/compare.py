"""`gcnet compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gcnet.cli.options import named_values, settings_options, split
from gcnet.recipes import Settings
from gcnet.tasks.parts import RUN
from gcnet.tasks.settings import all_fields

WHAT = "What is compared"
OWN = (
    "data",
    "task",
    "model",
    "weights",
    "epochs",
    "batch_size",
    "image_size",
    "lr",
    "seed",
    "cache",
    "workers",
    "runs",
)
OWN += ("block", "stages", "block_options")
NO_SETTING = ("data", "block", "block_options", "name", "runs")  # they have options of their own
HELPS = {
    "data": "Images in a folder or CSV; COCO or VOC; scenes: cue, dial-1 to dial-3, mirror, twice, cue/fashion",
    "block": "The block that --axis varies; else gc.",
    "block_options": "NAME=VALUE for every block, such as reduction=4; may be repeated.",
    "epochs": "Detectors: 12.",
    "batch_size": "Detectors: 2.",
    "image_size": "Pixels; else what the model was published with.",
    "lr": "Highest learning rate. Detectors: 0.02 for 16 images in a step.",
    "seed": "The first seed.",
    "cache": "Keep images in memory.",
    "workers": "Image readers.",
}


@settings_options(OWN, required=True, helps=HELPS)
def compare(
    given: dict[str, Any],
    blocks: Annotated[
        str | None,
        typer.Option(
            help="Names from `gcnet blocks`; none: no block.", show_default="none,se,snl,gc,nl", rich_help_panel=WHAT
        ),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            help="Instead of blocks an ablation of the paper, with its figures beside yours: block, position, stages, "
            "bottleneck, reduction or pool-fusion. Or at, where, or an option of --block.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="Values on the axis, such as 4,8,16 or c4,c3+c4+c5; else the paper's.", rich_help_panel=WHAT),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.", rich_help_panel=WHAT)] = 3,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for any other setting of `gcnet train`, such as schedule=one_cycle; may be repeated.",
            rich_help_panel=RUN,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="All runs are in the folder RUNS/NAME.", rich_help_panel=RUN)] = "compare",
) -> None:
    """Train the same model with several blocks and seeds; table, CSV, pictures and an HTML page of gains and costs.

    Interrupted, the same command goes on where it was; finished runs are not repeated.

    gcnet compare --data DIR --model resnet18 --blocks none,se,gc --seeds 3

    gcnet compare --data DIR --model resnet50 --axis reduction

    gcnet compare --data DIR --model resnet50 --block gc --axis hidden --values 16,64
    """
    if axis in (None, "block") and given.get("block") is not None:
        raise typer.BadParameter("goes with --axis; --blocks names the blocks to compare", param_hint="--block")
    shared = Settings(**given | _others(setting or []))
    chosen: list[Any] | None = None if values is None else split(values)
    if chosen is not None and axis != "block":  # there "none" is the name of a row
        chosen = [named_values([f"value={text}"])["value"] for text in chosen]
    from gcnet.recipes.comparison import compare as run
    from gcnet.report.comparison import say_comparison

    named = None if blocks is None else split(blocks)
    comparison = run(shared, blocks=named, axis=axis, values=chosen, seeds=seeds, name=name)
    say_comparison(comparison)
    typer.echo(f"\n{comparison.folder}: report.html, comparison.csv, runs.csv, accuracy.png, time.png, and the runs")
    if comparison.failures:
        raise typer.Exit(1)


def _others(texts: list[str]) -> dict[str, Any]:
    values = named_values(texts)
    allowed = [name for name in ("task", *all_fields()) if name not in NO_SETTING]
    wrong = next((name for name in values if name not in allowed), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is no setting; there are {', '.join(allowed)}", param_hint="--setting")
    return values
