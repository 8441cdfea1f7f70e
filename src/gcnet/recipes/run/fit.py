"""Lightning's part of a training: the trainer, its callbacks, and how processes are started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gcnet.data.source import Source
from gcnet.errors import RunError, SettingsError
from gcnet.tasks.run_data import RunData
from gcnet.tasks.run_files import AtomicCheckpointIO, RunFiles
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Task


def fit(settings: Settings, task: Task, source: Source, *, metric: str, progress: bool) -> None:
    """Train, from the run's last checkpoint if there is one.

    Raises:
        KeyboardInterrupt: the user stopped it.
        RunError: the devices or the precision are not there, a process failed.
    """
    optimisation, run, folder = settings.optimisation, settings.run, settings.folder
    callbacks: list[Callback] = [RunFiles(folder, metric, run.save_every)]
    if optimisation.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=optimisation.ema))
    shown = progress and sys.stdout.isatty()
    if shown:
        callbacks.append(RichProgressBar())
    last = folder / "checkpoints" / "last.ckpt"
    with _errors_in_words(settings):
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=strategy(settings),
            accumulate_grad_batches=optimisation.accumulate,
            max_epochs=optimisation.epochs,
            precision=run.precision,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            gradient_clip_val=optimisation.clip_norm or None,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=shown,
            default_root_dir=folder,
        )
        data = RunData(source, settings)
        trainer.fit(task, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)


@contextmanager
def _errors_in_words(settings: Settings) -> Iterator[None]:
    """What Lightning raises as what we raise; its handler of Ctrl-C is gone afterwards."""
    handler: Any = signal.getsignal(signal.SIGINT)
    run = settings.run
    try:
        yield
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stop
    except MisconfigurationException as error:  # such as more devices than there are
        raise RunError(f"devices={run.devices}, precision={run.precision!r}: {error}") from error
    except torch.multiprocessing.ProcessRaisedException as error:
        last_line = str(error).strip().splitlines()[-1]
        raise RunError(f"one of the {run.devices} processes failed: {last_line}") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def strategy(settings: Settings) -> str:
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
