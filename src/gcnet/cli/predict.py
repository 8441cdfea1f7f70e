"""`gcnet predict`."""

from __future__ import annotations

from collections import Counter
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
    from gcnet.recipes.prediction import predict as run

    results = run(weights, images, out=out, threshold=threshold, show_attention=show_attention, progress=True)
    detector = "objects" in results[0]
    table = Table("image", "objects") if detector else Table("image", "class", "score")
    broken = [entry for entry in results if entry["error"] is not None]
    for entry in results:
        if entry["error"] is None and detector:
            counts = Counter(one["class"] for one in entry["objects"])
            found = ", ".join(f"{name} {count}" for name, count in counts.most_common())
            table.add_row(escape(entry["path"]), escape(found) or "none")
        elif entry["error"] is None:
            table.add_row(escape(entry["path"]), escape(entry["class"]), f"{entry['score']:.3f}")
    console = Console()
    if table.row_count:
        console.print(table)
    if out is not None and detector:
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
