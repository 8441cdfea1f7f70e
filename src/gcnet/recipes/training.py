"""`train`: one run, from settings to a folder with checkpoints, figures and the best model."""

from __future__ import annotations

import contextlib
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gcnet.checkpoints import save_checkpoint
from gcnet.data.source import Source, open_images, open_photographs, open_scenes
from gcnet.errors import RunError as RunError
from gcnet.errors import SettingsError
from gcnet.models import create_model
from gcnet.models.preprocessing import at_size
from gcnet.recipes.run import folder as folders
from gcnet.recipes.run.folder import Run as Run
from gcnet.scenes.task import SceneTask
from gcnet.surgery import record
from gcnet.tasks import TASKS, RunFiles, Setup, Task
from gcnet.tasks.checkpoint_io import AtomicCheckpointIO
from gcnet.tasks.classification.module import ClassifyTask
from gcnet.tasks.detection.module import DetectTask
from gcnet.tasks.detection.prepare import DETECTION, prepare_detector
from gcnet.tasks.quiet import quiet_lightning
from gcnet.tasks.run_data import RunData
from gcnet.tasks.run_files import saved_state
from gcnet.tasks.settings import Settings


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
    _strategy(settings)  # refused before anything is written
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
        task = _task(settings, model, source)
        if first:
            folders.begin(folder, settings, source.fingerprint)
        try:
            _fit(settings, task, source, progress=progress)
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
    if settings.task in DETECTION:
        return prepare_detector(settings, settings.block.places())
    data = open_photographs(settings.data.path) if settings.task == "classify" else None
    source = open_scenes(settings.data.path, ("train", "val")) if data is None else None
    classes = data.classes if data is not None else source.classes if source is not None else ()
    model = create_model(
        settings.model.name,
        num_classes=len(classes),
        weights=settings.model.weights,
        block=settings.block.name,
        stages=settings.block.stages,
        **settings.block.places(),
    )
    if (settings.model.name == "scenes") != (settings.task == "scenes"):
        raise SettingsError(f"model={settings.model.name!r} does not fit task={settings.task!r}: scenes go with scenes")
    preprocessing = record.preprocessing(model)
    if preprocessing and settings.data.image_size:
        preprocessing = at_size(preprocessing, settings.data.image_size)
        record.set_preprocessing(model, preprocessing)
    if data is not None:
        source = open_images(data, preprocessing, cache=settings.data.cache, seed=settings.run.seed)
        if settings.data.cache and settings.data.workers:
            source.fill_caches()
    assert source is not None
    record.set_classes(model, list(source.classes))
    return model, source


def _task(settings: Settings, model: nn.Module, source: Source) -> Task:
    setup = Setup(
        names=source.names,
        optimisation=settings.optimisation,
        seed=settings.run.seed,
        channels_last=settings.run.channels_last,
    )
    if settings.task == "scenes":
        return SceneTask(model, setup)
    if settings.task in DETECTION:
        truth = source.truth.get("val", {"images": [], "annotations": [], "categories": []})
        return DetectTask(model, setup, truth=truth, masks=settings.task == "instances")
    return ClassifyTask(
        model,
        setup,
        num_classes=len(source.classes),
        label_smoothing=settings.own.label_smoothing,
        mixup=settings.own.mixup,
    )


def _fit(settings: Settings, task: Task, source: Source, *, progress: bool) -> None:
    folder = settings.folder
    callbacks: list[Callback] = [RunFiles(folder, TASKS[settings.task].metric, settings.run.save_every)]
    if settings.optimisation.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=settings.optimisation.ema))
    shown = progress and sys.stdout.isatty()
    if shown:
        callbacks.append(RichProgressBar())
    last = folder / "checkpoints" / "last.ckpt"
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=settings.run.devices,
            num_nodes=settings.run.nodes,
            strategy=_strategy(settings),
            accumulate_grad_batches=settings.optimisation.accumulate,
            max_epochs=settings.optimisation.epochs,
            precision=settings.run.precision,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            gradient_clip_val=settings.optimisation.clip_norm or None,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=shown,
            default_root_dir=folder,
        )
        trainer.fit(
            task,
            datamodule=RunData(source, settings),
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    except MisconfigurationException as error:  # such as more devices than there are
        raise RunError(f"devices={settings.run.devices}, precision={settings.run.precision!r}: {error}") from error
    except torch.multiprocessing.ProcessRaisedException as error:
        raise RunError(
            f"one of the {settings.run.devices} processes failed: {str(error).strip().splitlines()[-1]}"
        ) from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def _strategy(settings: Settings) -> str:
    """How processes are started: by us, or by torchrun or SLURM, which have done so already."""
    run = settings.run
    started = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    if run.nodes > 1 and not started:
        raise SettingsError(
            f"nodes={run.nodes}: several machines are started by torchrun or SLURM, a process for each device: "
            f"torchrun --nnodes {run.nodes} --nproc-per-node {run.devices} --no-python gcnet train ..."
        )
    if run.devices * run.nodes == 1:
        return "auto"
    return "ddp" if started else "ddp_spawn"


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
