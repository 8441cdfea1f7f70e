"""`gcnet profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gcnet.cli.options import BLOCK_OPTIONS, Reduction, settings_options, whole_numbers


@settings_options(BLOCK_OPTIONS)
def profile(
    put_in: dict[str, Any],
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a run, a file of weights, a torchvision classifier, timm/NAME, a detector "
            "(maskrcnn_resnet50_fpn), or scenes."
        ),
    ],
    input: Annotated[
        str | None, typer.Option(help="Channels, height and width: 3,800,1280; else what the model expects.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in the batch.")] = 1,
    rounds: Annotated[int, typer.Option(min=0, help="How often each model is timed; 0: not at all.")] = 20,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else cuda if there is one.")] = None,
    channels_last: Annotated[bool, typer.Option(help="Time it in this memory format.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures into this file.")] = None,
    reduction: Reduction = None,
) -> None:
    """Parameters, multiply-accumulates, memory and time of a model by stage, with and without its blocks.

    gcnet profile resnet50 --block gc --input 3,800,1280

    gcnet profile maskrcnn_resnet50_fpn --block gc    (at 800 x 1280, with 1000 boxes and 100 masks)
    """
    size = None if input is None else whole_numbers(input, "--input", "whole numbers such as 3,800,1280")
    if size is not None and len(size) not in (3, 4):
        raise typer.BadParameter(
            f"{input!r} is not channels, height and width, such as 3,800,1280", param_hint="--input"
        )
    if reduction is not None:
        put_in["block_options"] = put_in.get("block_options", {}) | {"reduction": reduction}
    from gcnet.recipes.profiling import profile as run
    from gcnet.report.terminal import show

    found = run(
        model,
        input_size=size,
        batch=batch,
        rounds=rounds,
        device=device,
        channels_last=channels_last,
        **put_in,
    )
    show(found, json, width=120)
