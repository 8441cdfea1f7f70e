"""`gcnet analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def analyze(
    model: Annotated[
        str, typer.Argument(help="Folder of a run, a file of weights, a torchvision classifier, or timm/NAME.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, and folders of them; for a model of scenes: cue, mirror, twice, ..."),
    ],
    weights: Annotated[str | None, typer.Option(help="For a model given by name: imagenet, or a file.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at the first so many images only.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a report of the first 12 images (.html), or a figure (.png, .pdf).")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write all figures into this file.")] = None,
) -> None:
    """Does the attention of each block depend on its query? Distances, intervals over images, and a verdict.

    gcnet analyze runs/run1 photos/ --out report.html

    gcnet analyze timm/vit_small_patch16_224 photos/ --weights imagenet --json distances.json
    """
    from gcnet.analysis.grids import MOST_IMAGES
    from gcnet.recipes.analysis import analyze as run
    from gcnet.report.page import check_target
    from gcnet.report.terminal import show

    if out is not None:
        check_target(out)
    keep = 0 if out is None else MOST_IMAGES
    found = run(model, images, weights=weights, limit=limit, keep=keep, progress=True)
    show(found, json, width=180)
    if out is not None:
        found.save(out)
        typer.echo(f"written: {out}")
    for path, reason in found.unreadable.items():
        typer.echo(f"gcnet: {path}: {reason}", err=True)
    if found.unreadable:
        typer.echo(f"gcnet: {len(found.unreadable)} images could not be read", err=True)
        raise typer.Exit(1)
