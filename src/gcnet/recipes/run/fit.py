"""Lightning's part of a training: the trainer, its data and callbacks, how processes are started, what it says."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from gcnet.data.loading import ResumableLoader, eval_loader, train_loader
from gcnet.data.source import Source
from gcnet.errors import RunError, SettingsError
from gcnet.tasks.run_files import AtomicCheckpointIO, RunFiles
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Task

LOGGERS = ("lightning.pytorch", "lightning.fabric")
NOISY = ("lightning", "torch.optim.lr_scheduler", "torch.utils._pytree")


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


class RunData(lightning.LightningDataModule):
    """The loaders of a run, made anew in every process that takes part."""

    def __init__(self, source: Source, settings: Settings) -> None:
        super().__init__()
        self.source = source
        self.settings = settings
        self._loader: ResumableLoader | None = None
        self._progress: dict[str, int] = {}

    def setup(self, stage: str) -> None:
        if multiprocessing.parent_process() is not None:  # one of several training processes, started for this alone
            _hush()

    def train_dataloader(self) -> DataLoader[Any]:
        self._loader = train_loader(self.source, seed=self.settings.run.seed, **self._common())
        if self._progress:
            self._loader.load_state_dict(self._progress)
        return self._loader

    # Lightning restores a data module before it asks for the loader, but loaders only if it has not asked yet; and
    # the schedule, which wants the number of steps, makes it ask early.
    def state_dict(self) -> dict[str, Any]:
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._progress = state_dict

    def val_dataloader(self) -> Any:
        return eval_loader(self.source, "val", **self._common()) if "val" in self.source.datasets else []

    def _common(self) -> dict[str, int]:
        assert self.trainer is not None
        data = self.settings.data
        ranks = {"rank": self.trainer.global_rank, "world": self.trainer.world_size}
        return {"batch_size": data.batch_size, "workers": data.workers, **ranks}


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


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside, Lightning's lines on devices and tips and its advice on workers are hidden; errors stay."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        with warnings.catch_warnings():
            _hush()
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _hush() -> None:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in NOISY:
        warnings.filterwarnings("ignore", module=rf"{module}.*")
