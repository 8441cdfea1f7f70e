"""`gcnet predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    weights: Annotated[Path, typer.Option(help="Folder of a run, or a .safetensors file that gcnet wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for predictions.csv and predictions.json.")] = None,
) -> None:
    """Name the class of photographs. A broken file is named at the end, after all others are done (exit code 1).

    gcnet predict IMAGE... --weights runs/run1 --out DIR
    """
    from gcnet.recipes.predict import predict as run

    results = run(weights, images, out=out, progress=True)
    table = Table("image", "class", "score")
    broken = [entry for entry in results if entry["error"] is not None]
    for entry in results:
        if entry["error"] is None:
            table.add_row(escape(entry["path"]), escape(entry["class"]), f"{entry['score']:.3f}")
    console = Console()
    if table.row_count:
        console.print(table)
    if out is not None:
        console.print(
            f"written: {out / 'predictions.csv'}, {out / 'predictions.json'}", highlight=False, soft_wrap=True
        )
    for entry in broken:
        typer.echo(f"gcnet: {entry['path']}: {entry['error']}", err=True)
    if broken:
        typer.echo(f"gcnet: {len(broken)} of {len(results)} images could not be read", err=True)
        raise typer.Exit(1)
