"""`gcnet train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gcnet.cli.options import (
    BLOCK_PANEL,
    At,
    Option,
    Position,
    Reduction,
    Stages,
    Weights,
    Where,
    named_values,
    whole_numbers,
)
from gcnet.tasks.settings import Settings, all_fields, from_json

_DEFAULTS: dict[str, Any] = {"task": "classify"} | {name: one.default for name, one in all_fields().items()}
_RUN, _OPTIMISER, _DETECT = "The run", "Optimisation", "Detectors"
_NOT_SETTINGS = ("resume", "option", "reduction", "detector_option", "recipe")


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder or CSV of images; of COCO or VOC for objects; for scenes: cue, dial-1 to dial-3, mirror, "
            "twice, cue/fashion ..."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="classify, detect, instances or scenes.")] = _DEFAULTS["task"],
    model: Annotated[str, typer.Option(help="A torchvision classifier, timm/NAME, a detector, or scenes.")] = _DEFAULTS[
        "model"
    ],
    weights: Weights = None,
    block: Annotated[
        str | None, typer.Option(help="gc, snl, se, nl, ...; none: the plain model.", rich_help_panel=BLOCK_PANEL)
    ] = None,
    stages: Stages = None,
    reduction: Reduction = None,
    at: At = None,
    where: Where = None,
    position: Position = None,
    option: Option = None,
    deform: Annotated[
        str | None, typer.Option(help="Stages with deformable convolutions, such as c3,c4,c5.", rich_help_panel=_DETECT)
    ] = None,
    detector_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for create_detector, such as norm=frozen.", rich_help_panel=_DETECT),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="1x (12 epochs, the default) or 2x (24).", rich_help_panel=_DETECT)
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Short sides drawn from in training: 640,720,800.", rich_help_panel=_DETECT)
    ] = None,
    photometric: Annotated[
        bool, typer.Option("--photometric", help="Change colours at random.", rich_help_panel=_DETECT)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse faulty annotations.", rich_help_panel=_DETECT)
    ] = False,
    epochs: Annotated[int, typer.Option()] = _DEFAULTS["epochs"],
    batch_size: Annotated[int, typer.Option()] = _DEFAULTS["batch_size"],
    accumulate: Annotated[int, typer.Option(help="Batches per step.")] = _DEFAULTS["accumulate"],
    image_size: Annotated[
        int | None, typer.Option(help="Pixels (of a detector the short side); else as the model was published.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.", rich_help_panel=_OPTIMISER)] = _DEFAULTS["optimizer"],
    lr: Annotated[float, typer.Option(help="Highest learning rate.", rich_help_panel=_OPTIMISER)] = _DEFAULTS["lr"],
    block_lr: Annotated[
        float, typer.Option(help="Multiplies lr for the inserted blocks.", rich_help_panel=_OPTIMISER)
    ] = _DEFAULTS["block_lr"],
    weight_decay: Annotated[
        float, typer.Option(help="Not of norms and biases.", rich_help_panel=_OPTIMISER)
    ] = _DEFAULTS["weight_decay"],
    schedule: Annotated[
        str, typer.Option(help="cosine, one_cycle, steps or constant.", rich_help_panel=_OPTIMISER)
    ] = _DEFAULTS["schedule"],
    warmup_epochs: Annotated[float, typer.Option(rich_help_panel=_OPTIMISER)] = _DEFAULTS["warmup_epochs"],
    warmup_steps: Annotated[
        int, typer.Option(help="In place of epochs, if not 0.", rich_help_panel=_OPTIMISER)
    ] = _DEFAULTS["warmup_steps"],
    label_smoothing: Annotated[float, typer.Option(rich_help_panel=_OPTIMISER)] = _DEFAULTS["label_smoothing"],
    clip_norm: Annotated[
        float, typer.Option(help="Bound on the gradients' norm; 0: none.", rich_help_panel=_OPTIMISER)
    ] = _DEFAULTS["clip_norm"],
    ema: Annotated[
        float | None, typer.Option(help="Decay of averaged weights, such as 0.999.", rich_help_panel=_OPTIMISER)
    ] = None,
    mixup: Annotated[float, typer.Option(help="Alpha; 0: off.", rich_help_panel=_OPTIMISER)] = _DEFAULTS["mixup"],
    seed: Annotated[int, typer.Option(rich_help_panel=_RUN)] = _DEFAULTS["seed"],
    devices: Annotated[int, typer.Option(help="Processes, one per GPU.", rich_help_panel=_RUN)] = _DEFAULTS["devices"],
    nodes: Annotated[
        int, typer.Option(help="Machines, each started by torchrun or SLURM.", rich_help_panel=_RUN)
    ] = _DEFAULTS["nodes"],
    save_every: Annotated[
        int, typer.Option(help="Steps between checkpoints inside an epoch; 0: none.", rich_help_panel=_RUN)
    ] = _DEFAULTS["save_every"],
    workers: Annotated[int, typer.Option(help="Processes that read images.", rich_help_panel=_RUN)] = _DEFAULTS[
        "workers"
    ],
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.", rich_help_panel=_RUN)] = _DEFAULTS[
        "precision"
    ],
    channels_last: Annotated[bool, typer.Option(rich_help_panel=_RUN)] = _DEFAULTS["channels_last"],
    cache: Annotated[bool, typer.Option(help="Keep decoded images in memory.", rich_help_panel=_RUN)] = _DEFAULTS[
        "cache"
    ],
    name: Annotated[str, typer.Option(help="The run is the folder RUNS/NAME.", rich_help_panel=_RUN)] = _DEFAULTS[
        "name"
    ],
    runs: Annotated[Path, typer.Option(rich_help_panel=_RUN)] = _DEFAULTS["runs"],
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder; only --epochs may grow.", rich_help_panel=_RUN),
    ] = None,
) -> None:
    """Train a classifier or a detector with context blocks.

    gcnet train --data DIR --model resnet50 --block gc --stages c3,c4,c5 --reduction 16 --epochs 30 --name run1

    gcnet train --task instances --data DIR --model maskrcnn_resnet50_fpn --block gc --name run2

    gcnet train --resume runs/run1
    """
    given = {
        key: value
        for key, value in context.params.items()
        if context.get_parameter_source(key).name != "DEFAULT" and key not in _NOT_SETTINGS  # type: ignore[union-attr]
    }
    if given.get("block") == "none":
        given["block"] = None
    for key in ("stages", "deform"):
        if key in given:
            given[key] = tuple(part.strip() for part in given[key].split(","))
    if scales is not None:
        given["scales"] = whole_numbers(scales, "--scales", "sizes such as 640,720,800")
    if detector_option:
        given["detector_options"] = named_values(detector_option, "--detector-option")
    options = named_values(option or [])
    if reduction is not None:
        options["reduction"] = reduction
    if options:
        given["block_options"] = options
    if resume is None:
        if data is None:
            raise typer.BadParameter("give --data, or --resume to go on with a run", param_hint="--data")
        if recipe is not None and task not in ("detect", "instances"):
            raise typer.BadParameter("goes with --task detect or instances", param_hint="--recipe")
        settings = Settings(**given | ({"recipe": recipe} if recipe is not None else {}))
    else:
        if not (resume / "settings.json").exists():
            raise typer.BadParameter(f"{resume} holds no run (no settings.json)", param_hint="--resume")
        if recipe is not None:
            raise typer.BadParameter("a run that is resumed keeps its recipe; --epochs may grow", param_hint="--recipe")
        settings = dataclasses.replace(
            from_json(resume / "settings.json"), runs=resume.parent, name=resume.name, **given
        )

    from gcnet.recipes.run.training import train as run

    try:
        result = run(settings, resume=resume is not None)
    except KeyboardInterrupt:
        began = (settings.folder / "settings.json").exists()
        how = f"go on by: gcnet train --resume {settings.folder}" if began else "the run had not begun"
        typer.echo(f"gcnet: interrupted; {how}", err=True)
        raise typer.Exit(1) from None
    say_run(result.folder, result.summary)


def say_run(folder: Path, summary: dict[str, Any]) -> None:
    """What came out of a run and where it is."""
    console = Console()
    figures = ", ".join(f"{name} {value:.4f}" for name, value in summary["best"].items())
    console.print(
        f"{summary['epochs']} epochs in {summary['seconds']:.0f} s; best: {figures or 'no validation data'} "
        f"(epoch {summary['best_epoch']})",
        highlight=False,
    )
    if summary["skipped_images"]:
        console.print(f"{summary['skipped_images']} unreadable images were skipped:", highlight=False)
        for path, reason in summary["skipped"].items():
            console.print(f"  {path}: {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{folder}: model.safetensors (best epoch), checkpoints/, metrics.csv, summary.json, settings.json, run.json",
        highlight=False,
        soft_wrap=True,
    )
