"""`gcnet predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_DETECTORS = "Detectors"


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    weights: Annotated[Path, typer.Option(help="Folder of a run, or a file of weights.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for predictions.csv and .json; of a detector for pictures and JSON.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score of an object.", rich_help_panel=_DETECTORS)] = 0.5,
    show_attention: Annotated[
        bool, typer.Option("--show-attention", help="Also draw where the context blocks look, into the folder --out.")
    ] = False,
) -> None:
    """Name the class of photographs, or find the objects in them.

    A broken file is named at the end, after all others are done (exit code 1).

    gcnet predict IMAGE... --weights runs/run1 --out DIR
    """
    from gcnet.recipes.inputs import stored_model
    from gcnet.recipes.prediction import predict as run
    from gcnet.tasks.table import spec_of

    model = stored_model(weights)
    results = run(model, images, out=out, threshold=threshold, show_attention=show_attention, progress=True)
    known = spec_of(model)
    broken = [entry for entry in results if entry["error"] is not None]
    rows = [{"image": entry["path"], **known.shown(entry)} for entry in results if entry["error"] is None]
    console = Console()
    if rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*map(escape, row.values()))
        console.print(table)
    if out is not None and known.draw is not None:
        kinds = "a picture and a JSON file" + (", a picture of the attention" if show_attention else "")
        console.print(f"written: {out}: for each image {kinds}", highlight=False, soft_wrap=True)
    elif out is not None:
        kinds = ", for each image a picture of the attention" if show_attention else ""
        console.print(
            f"written: {out / 'predictions.csv'}, {out / 'predictions.json'}{kinds}", highlight=False, soft_wrap=True
        )
    for entry in broken:
        typer.echo(f"gcnet: {entry['path']}: {entry['error']}", err=True)
    if broken:
        typer.echo(f"gcnet: {len(broken)} of {len(results)} images could not be read", err=True)
        raise typer.Exit(1)
