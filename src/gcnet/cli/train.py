"""`gcnet train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gcnet.cli.options import Reduction, settings_options
from gcnet.recipes import Settings
from gcnet.tasks.parts import OBJECTS, RUN


@settings_options()
def train(
    given: dict[str, Any],
    reduction: Reduction = None,
    recipe: Annotated[
        str | None, typer.Option(help="1x (12 epochs, the default) or 2x (24).", rich_help_panel=OBJECTS)
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder; only --epochs may grow.", rich_help_panel=RUN),
    ] = None,
) -> None:
    """Train a classifier or a detector with context blocks.

    gcnet train --data DIR --model resnet50 --block gc --stages c3,c4,c5 --reduction 16 --epochs 30 --name run1

    gcnet train --task instances --data DIR --model maskrcnn_resnet50_fpn --block gc --name run2

    gcnet train --resume runs/run1
    """
    if reduction is not None:
        given["block_options"] = given.get("block_options", {}) | {"reduction": reduction}
    if recipe is not None:
        given["recipe"] = recipe
    if resume is None and "data" not in given:
        raise typer.BadParameter("give --data, or --resume to go on with a run", param_hint="--data")
    from gcnet.recipes.run.folder import settings_to_resume

    settings = Settings(**given) if resume is None else settings_to_resume(resume, given)
    from gcnet.recipes.run.training import train as run

    try:
        result = run(settings, resume=resume is not None)
    except KeyboardInterrupt:
        began = (settings.folder / "settings.json").exists()
        how = f"go on by: gcnet train --resume {settings.folder}" if began else "the run had not begun"
        raise KeyboardInterrupt(how) from None
    say_run(result.folder, result.summary)


def say_run(folder: Path, summary: dict[str, Any]) -> None:
    """What came out of a run and where it is."""
    console = Console(highlight=False)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in summary["best"].items())
    console.print(
        f"{summary['epochs']} epochs in {summary['seconds']:.0f} s; best: {figures or 'no validation data'} "
        f"(epoch {summary['best_epoch']})"
    )
    if summary["skipped_images"]:
        console.print(f"{summary['skipped_images']} unreadable images were skipped:")
        for path, reason in summary["skipped"].items():
            console.print(f"  {path}: {reason}", markup=False, soft_wrap=True)
    files = "model.safetensors (best epoch), checkpoints/, metrics.csv, summary.json, settings.json, run.json"
    console.print(f"{folder}: {files}", soft_wrap=True)
