"""`gcnet profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcnet.cli.train import block_options

if TYPE_CHECKING:
    from torch import nn

_BLOCK = "The block and its place"


def profile(
    model: Annotated[
        str, typer.Argument(help="A torchvision classifier, timm/NAME, scenes; the folder of a run, or a .safetensors.")
    ],
    input: Annotated[
        str | None, typer.Option(help="Channels, height and width: 3,800,1280; else what the model expects.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in the batch.")] = 1,
    block: Annotated[str | None, typer.Option(help="gc, snl, se, nl, ...", rich_help_panel=_BLOCK)] = None,
    stages: Annotated[str | None, typer.Option(help="Such as c3,c4,c5.", rich_help_panel=_BLOCK)] = None,
    reduction: Annotated[int | None, typer.Option(help="Channels per hidden channel.", rich_help_panel=_BLOCK)] = None,
    at: Annotated[
        str | None, typer.Option(help="Glob over module names, in place of stages.", rich_help_panel=_BLOCK)
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="all, last, before_last, or indices such as 0,2.", rich_help_panel=_BLOCK)
    ] = None,
    position: Annotated[str | None, typer.Option(help="after_1x1 or after_add.", rich_help_panel=_BLOCK)] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the block; may be repeated.", rich_help_panel=_BLOCK)
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="How often each model is timed; 0: not at all.")] = 20,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else cuda if there is one.")] = None,
    channels_last: Annotated[bool, typer.Option(help="Time it in this memory format.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures into this file.")] = None,
) -> None:
    """Parameters, multiply-accumulates, memory and time of a model by stage, with and without its blocks.

    gcnet profile resnet50 --block gc --input 3,800,1280
    """
    size = None if input is None else _whole_numbers(input, "--input")
    if size is not None and len(size) not in (3, 4):
        raise typer.BadParameter(
            f"{input!r} is not channels, height and width, such as 3,800,1280", param_hint="--input"
        )
    options: dict[str, Any] = block_options(option or [])
    if reduction is not None:
        options["reduction"] = reduction
    for name, value in (("at", at), ("position", position), ("where", _where(where))):
        if value is not None:
            options[name] = value
    if block is None and (options or stages is not None):
        raise typer.BadParameter("name the block that this says where and how to put in", param_hint="--block")

    import torch
    from rich.console import Console

    from gcnet.analysis.profile import profile as measure
    from gcnet.models.create import example_input

    built = _model(model, block, None if stages is None else [stage.strip() for stage in stages.split(",")], options)
    where_to = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if where_to not in ("cpu", "cuda") or (where_to == "cuda" and not torch.cuda.is_available()):
        raise typer.BadParameter(f"{where_to!r} is not there; use cpu" + (" or cuda" * torch.cuda.is_available()))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    built = built.to(where_to, memory_format=layout)  # type: ignore[call-overload]
    figures = measure(built, (batch, *(size or example_input(built).shape[1:])), rounds=rounds)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(figures)
    if json is not None:
        from json import dumps

        from gcnet.checkpoints.atomic import write_text

        write_text(json, dumps(figures.to_dict(), indent=2) + "\n")
        typer.echo(f"written: {json}")


def _model(name: str, block: str | None, stages: list[str] | None, options: dict[str, Any]) -> nn.Module:
    from gcnet.checkpoints import load_checkpoint
    from gcnet.models import create_model

    path = Path(name)
    if path.is_dir() or path.suffix == ".safetensors":
        if block is not None:
            raise typer.BadParameter(f"{name} says itself which blocks it has", param_hint="--block")
        return load_checkpoint(path / "model.safetensors" if path.is_dir() else path).model
    return create_model(name, num_classes=10 if name == "scenes" else 1000, block=block, stages=stages, **options)


def _where(text: str | None) -> Any:
    """all, last, before_last, or a list of indices."""
    if text is None or not text.replace(",", "").replace("-", "").strip().isdigit():
        return text
    return _whole_numbers(text, "--where")


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers such as 3,800,1280", param_hint=option
        ) from None
