"""`gcnet simplify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def simplify(
    weights: Annotated[Path, typer.Argument(metavar="IN", help="Folder of a run, or a file of weights.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to be written.")],
    data: Annotated[
        str | None, typer.Option(help="Folder or CSV of images, labels are not read; else the data of the run.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Instead of --data: an image or a folder of them; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(help="Images at most; every fourth is held out to measure the blocks.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Images in one pass.")] = 16,
    max_error: Annotated[
        float, typer.Option(help="Largest relative error of what a block adds, or share of decisions that may change.")
    ] = 0.02,
    refine_steps: Annotated[int, typer.Option(help="Steps in which the new blocks learn from the old ones.")] = 0,
) -> None:
    """Replace non-local blocks whose attention hardly depends on the query by one map per image: no training.

    gcnet simplify runs/run1 simple.safetensors --images photos/
    """
    from gcnet.recipes.simplification import simplify as run

    result = run(
        weights,
        out,
        data=data,
        images=images or None,
        count=count,
        batch_size=batch_size,
        max_error=max_error,
        refine_steps=refine_steps,
        progress=True,
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(result.report))
    for name, reason in result.report.kept.items():
        console.print(f"kept {name or 'the model itself'}: {reason}", markup=False)
    for path, reason in result.skipped.items():
        console.print(f"skipped {path}: {reason}", markup=False)
    fit, held = result.report.images
    replaced = len(result.report.replaced)
    if replaced and result.report.output_error is not None:
        console.print(f"outputs differ by {result.report.output_error:.1%} (2-norm) on {held} held-out images")
    if replaced and result.report.changed is not None:
        console.print(f"decisions changed: {result.report.changed:.2%} of {result.report.decisions} on these images")
    if result.speed_up is not None:
        faster = result.speed_up
        console.print(f"whole model: {faster.value:.2f} times faster ({faster.low:.2f} to {faster.high:.2f})")
    written = f"{replaced} of {len(result.report.blocks)} blocks replaced, {fit} images to fit"
    console.print(f"written: {result.path} ({written})", markup=False)


def _table(report: Any) -> Table:
    table = Table("block", "kind", "result", "error", "times faster")
    for column in table.columns[3:]:
        column.justify = "right"
    for block in report.blocks:
        result = f"replaced ({block.form}{', refined' if block.refined else ''})" if block.replaced else "kept"
        error = "" if block.error is None else f"{block.error:.4f}"
        faster = "" if block.speed_up is None else "{:.1f} ({:.1f} to {:.1f})".format(*block.speed_up)
        table.add_row(escape(block.name or "the model itself"), block.kind, result, error, faster)
    return table
