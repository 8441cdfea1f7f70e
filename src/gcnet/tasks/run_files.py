"""What a run writes while it trains: the last and the best checkpoint, and one row of figures per epoch."""

from __future__ import annotations

import csv
import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gcnet.distributed import gathered
from gcnet.files.atomic import write_atomically, write_text


class RunFiles(Checkpoint):
    """Writes `checkpoints/last.ckpt` after every epoch, `checkpoints/best.ckpt` and `metrics.csv`.

    Whatever happens in the middle of an epoch, last.ckpt is the end of the one before (or, with `save_every`, the last
    multiple of so many steps), and resuming from it goes on with the same order and the same random numbers.

    Args:
        folder: of the run.
        metric: the validation figure whose highest value is the best; without validation data the last epoch is.
        save_every: steps of the optimiser between further writings of last.ckpt; 0 for none.
    """

    def __init__(self, folder: Path, metric: str, save_every: int = 0) -> None:
        self.folder = folder
        self.metric = metric
        self.save_every = save_every
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        self._start = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best, self.skipped = state_dict["rows"], state_dict["best"], state_dict["skipped"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start = time.perf_counter()  # an epoch resumed in its middle has no start of its own

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        stepped = done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches
        if self.save_every and stepped and trainer.global_step % self.save_every == 0:
            trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                **figures,
                "seconds": round(time.perf_counter() - self._start, 3),
            }
        )
        value = figures.get(f"val_{self.metric}")
        better = not self.best or value is None or value > self.best.get(self.metric, float("-inf"))
        if better:
            validated = {name.removeprefix("val_"): v for name, v in figures.items() if name.startswith("val_")}
            self.best = {**validated, "epoch": trainer.current_epoch + 1}
        self.skipped = gathered(self.skipped | getattr(pl_module, "skipped", {}))
        last = self.folder / "checkpoints" / "last.ckpt"
        trainer.save_checkpoint(last)
        if trainer.is_global_zero:
            if better:
                _same_file(last, last.with_name("best.ckpt"))
            write_text(self.folder / "metrics.csv", _table(self.rows))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically: a full disk or a kill leaves the older file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))


def saved_state(checkpoint: Path) -> dict[str, Any]:
    """Rows, best epoch and skipped images of a checkpoint that `RunFiles` wrote."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["callbacks"][RunFiles.__name__]


def _same_file(source: Path, target: Path) -> None:
    """Let `target` be the file that `source` is now; `source` is only ever replaced, so a hard link suffices."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, partial)
    os.replace(partial, target)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
