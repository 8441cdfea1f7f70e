"""`gcnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a .safetensors file that gcnet wrote.")],
    data: Annotated[str | None, typer.Option(help="Folder or CSV of images; else the data of the run.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse faulty annotations of objects.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json; else the run's own folder.")] = None,
) -> None:
    """Measure a trained model: top-1, top-5, every class, confusion matrix; a detector: COCO's figures.

    gcnet evaluate runs/run1 --data DIR
    """
    import json

    from gcnet.files.atomic import write_text
    from gcnet.recipes.run.evaluation import evaluate as measure

    try:
        result = measure(run, data=data, split=split, strict=strict, progress=True)
    except KeyboardInterrupt:
        typer.echo("gcnet: interrupted; nothing was written", err=True)
        raise typer.Exit(1) from None
    folder = out if out is not None else run if run.is_dir() else None
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(result, indent=2) + "\n")
    console = Console()
    if "box_AP" in result:
        _say_objects(console, result)
    elif "per_class" in result:
        _say_classes(console, result)
    figures = [f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float)]
    console.print(f"{', '.join(figures)} on {result['images']} examples ({split})", highlight=False)
    for path, reason in result.get("skipped", {}).items():
        console.print(f"skipped {path}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if folder is not None:
        console.print(f"written: {folder / 'evaluation.json'}", highlight=False, soft_wrap=True)


def _say_objects(console: Console, result: dict[str, Any]) -> None:
    columns = [name for name in ("box_AP", "box_AP50", "mask_AP", "mask_AP50") if name in result]
    table = Table("class", *columns, title=f"{result['weights']} on {result['data']}")
    for row in result["per_class"]:
        table.add_row(row["class"], *("-" if row[name] is None else f"{row[name]:.3f}" for name in columns))
    console.print(table)


def _say_classes(console: Console, result: dict[str, Any]) -> None:
    table = Table("class", *(("precision", "recall", "F1", "images")), title=f"{result['weights']} on {result['data']}")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result["per_class"]:
        figures = (f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        table.add_row(row["class"], *figures, str(row["images"]))
    console.print(table)
