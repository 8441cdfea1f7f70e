"""`gcnet evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or a file of weights.")],
    data: Annotated[str | None, typer.Option(help="Folder or CSV of images; else the data of the run.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse faulty annotations of objects.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json; else the run's own folder.")] = None,
) -> None:
    """Measure a trained model: top-1, top-5, every class, confusion matrix; a detector: COCO's figures.

    gcnet evaluate runs/run1 --data DIR
    """
    from gcnet.files.atomic import write_text
    from gcnet.recipes.run.evaluation import evaluate as measure
    from gcnet.report.terminal import class_table

    result = measure(run, data=data, split=split, strict=strict, progress=True)
    folder = out if out is not None else run if run.is_dir() else None
    if out is not None:
        write_text(out / "evaluation.json", json.dumps(result, indent=2) + "\n")
    console = Console(highlight=False)
    rows = result.get("per_class")
    if rows:
        console.print(class_table(rows, title=f"{result['weights']} on {result['data']}"))
    figures = [f"{name} {value:.4f}" for name, value in result.items() if isinstance(value, float)]
    console.print(f"{', '.join(figures)} on {result['images']} examples ({split})")
    for path, reason in result.get("skipped", {}).items():
        console.print(f"skipped {path}: {reason}", markup=False, soft_wrap=True)
    if folder is not None:
        console.print(f"written: {folder / 'evaluation.json'}", soft_wrap=True)
