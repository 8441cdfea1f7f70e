"""`gcnet profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gcnet.cli.figures import show
from gcnet.cli.options import BLOCK_PANEL, At, Option, Position, Reduction, Stages, Where, named_values, whole_numbers

if TYPE_CHECKING:
    from torch import nn


def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A torchvision classifier, timm/NAME, a detector (maskrcnn_resnet50_fpn), scenes; "
            "the folder of a run, or a .safetensors."
        ),
    ],
    input: Annotated[
        str | None, typer.Option(help="Channels, height and width: 3,800,1280; else what the model expects.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in the batch.")] = 1,
    block: Annotated[str | None, typer.Option(help="gc, snl, se, nl, ...", rich_help_panel=BLOCK_PANEL)] = None,
    stages: Stages = None,
    reduction: Reduction = None,
    at: At = None,
    where: Where = None,
    position: Position = None,
    option: Option = None,
    rounds: Annotated[int, typer.Option(min=0, help="How often each model is timed; 0: not at all.")] = 20,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else cuda if there is one.")] = None,
    channels_last: Annotated[bool, typer.Option(help="Time it in this memory format.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures into this file.")] = None,
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
    options: dict[str, Any] = named_values(option or [])
    if reduction is not None:
        options["reduction"] = reduction
    for name, value in (("at", at), ("position", position), ("where", _where(where))):
        if value is not None:
            options[name] = value
    if block is None and (options or stages is not None):
        raise typer.BadParameter("name the block that this says where and how to put in", param_hint="--block")

    import torch

    from gcnet.report.profile import profile as measure

    built = _model(model, block, None if stages is None else [stage.strip() for stage in stages.split(",")], options)
    where_to = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if where_to not in ("cpu", "cuda") or (where_to == "cuda" and not torch.cuda.is_available()):
        raise typer.BadParameter(f"{where_to!r} is not there; use cpu" + (" or cuda" * torch.cuda.is_available()))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    built = built.to(where_to, memory_format=layout)  # type: ignore[call-overload]
    figures = measure(built, (batch, *(size or _expected_size(built))), rounds=rounds)
    show(figures, json, width=120)


def _model(name: str, block: str | None, stages: list[str] | None, options: dict[str, Any]) -> nn.Module:
    from gcnet.checkpoints import load_checkpoint
    from gcnet.models import create_model
    from gcnet.models.detection import is_detector

    path = Path(name)
    if path.is_dir() or path.suffix == ".safetensors":
        if block is not None:
            raise typer.BadParameter(f"{name} says itself which blocks it has", param_hint="--block")
        return load_checkpoint(path / "model.safetensors" if path.is_dir() else path).model
    classes = 10 if name == "scenes" else 80 if is_detector(name) else 1000
    return create_model(name, num_classes=classes, block=block, stages=stages, **options)


def _expected_size(model: nn.Module) -> tuple[int, ...]:
    """Channels, height and width of a model's input; for a detector a landscape of its shorter side, 800 x 1280."""
    from gcnet.surgery import record
    from gcnet.surgery.probe import example_input

    side = (record.preprocessing(model) or {}).get("min_size")
    if side is None:
        return tuple(example_input(model).shape[1:])
    shorter = side[-1] if isinstance(side, list) else side
    return 3, shorter, round(1.6 * shorter)


def _where(text: str | None) -> Any:
    """all, last, before_last, or a list of indices."""
    if text is None or not text.replace(",", "").replace("-", "").strip().isdigit():
        return text
    return whole_numbers(text, "--where", "whole numbers such as 0,2")
