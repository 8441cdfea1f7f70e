"""`train`: one run, from settings to a folder with checkpoints, figures and the best model."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from gcnet.checkpoints import save_checkpoint
from gcnet.data.source import Source
from gcnet.recipes.run import folder as folders
from gcnet.recipes.run.fit import fit, quiet_lightning, strategy
from gcnet.recipes.run.folder import Run
from gcnet.tasks.run_files import saved_state
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Setup
from gcnet.tasks.table import spec


def train(settings: Settings, *, resume: bool = False, progress: bool = True) -> Run:
    """Train a model as the settings say, in the folder `settings.folder`.

    On the CPU a run is repeatable to the last bit, and one that was interrupted and resumed ends with the weights of
    one that was not. Interrupted in the middle of an epoch (Ctrl-C, a bad loss, a full disk), it keeps the end of the
    epoch before in `checkpoints/last.ckpt`, or the last multiple of `save_every` steps, and goes on from there.

    Args:
        settings: all that decides the run.
        resume: go on with the run in that folder, whose settings must be the same; `epochs` may be higher (cosine is
            then stretched over the new number). Without it a folder that holds anything is refused.
        progress: show a progress bar, if the output is a terminal.

    Returns:
        The run's folder and summary: status, best figures, epochs, seconds, skipped images.

    Raises:
        SettingsError, RunError, WeightsError: what is asked for cannot be done; the message says what can.
        NonFiniteError: the loss or the gradients are not finite; names the step and the files of the batch.
        OSError: the disk is full or not writable; files written before are intact.
    """
    folder = settings.folder
    strategy(settings)  # refused before anything is written
    first = rank_zero_only.rank == 0  # torchrun and SLURM run this function in every process; one of them writes
    if resume:
        folders.check_resumable(folder, settings)
        finished = folders.read_summary(folder)
        if finished.get("status") == "done" and finished.get("epochs") == settings.optimisation.epochs:
            return Run(folder, finished)
    elif first:
        folders.check_new(folder)
    with quiet_lightning():
        lightning.seed_everything(settings.run.seed, workers=True, verbose=False)
        model, source = prepare(settings)
        if resume:
            folders.check_data(folder, source.fingerprint)
        known, optimisation, run = spec(settings.task), settings.optimisation, settings.run
        setup = Setup(names=source.names, optimisation=optimisation, seed=run.seed, channels_last=run.channels_last)
        task = known.module(model, setup, source, settings)
        if first:
            folders.begin(folder, settings, source.fingerprint)
        try:
            fit(settings, task, source, metric=known.metric, progress=progress)
        except BaseException as error:
            if first:
                with contextlib.suppress(OSError):
                    folders.write_summary(folder, _summary(folder, "interrupted") | {"reason": _reason(error)})
            raise
    summary = _summary(folder, "done")
    if first:
        _export(task.model, folder)
        folders.write_summary(folder, summary)
    return Run(folder, summary)


def prepare(settings: Settings) -> tuple[nn.Module, Source]:
    """The model as it is before the first step, and the data, of a run."""
    known = spec(settings.task)
    found = known.read(settings.data.path, splits=("train", "val"), settings=settings)
    model = known.build(settings, found.classes)
    return model, known.open(found, model, settings)


def _export(model: nn.Module, folder: Path) -> None:
    """Fill the model with the best epoch's weights and write it as `model.safetensors`."""
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    state = {key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items()}
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    save_checkpoint(model, folder / "model.safetensors")


def _summary(folder: Path, status: str) -> dict[str, Any]:
    last = folder / "checkpoints" / "last.ckpt"
    state = saved_state(last) if last.exists() else {"rows": [], "best": {}, "skipped": {}}
    seconds = [row["seconds"] for row in state["rows"]]
    best = dict(state["best"])
    best_epoch = best.pop("epoch", None)
    return {
        "status": status,
        "best": best,
        "best_epoch": best_epoch,
        "epochs": len(seconds),
        "seconds": round(sum(seconds), 3),
        "seconds_per_epoch": statistics.median(seconds) if seconds else None,
        "skipped_images": len(state["skipped"]),
        "skipped": state["skipped"],
    }


def _reason(error: BaseException) -> str:
    return "interrupted by the user" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
