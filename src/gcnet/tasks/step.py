"""What training has in common for every task: seeding each step, skipping bad images, stopping at a bad loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn

from gcnet.data.seeds import derive
from gcnet.errors import NonFiniteError
from gcnet.tasks.optimiser import Optimisation, build_optimiser


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every task needs to know beside its model.

    `names` are what the examples are called in messages, by split ("train", "val") and index.
    """

    names: Mapping[str, Sequence[str]]
    optimisation: Optimisation
    seed: int
    channels_last: bool = True


class Task(lightning.LightningModule):
    """A model in training. A batch has its images first, and `indices` and `errors`.

    Every step draws its random numbers (dropout, mixup) from (seed, epoch, batch, process) alone, so that a resumed
    run continues exactly and two models see the same draws.

    Args:
        model: the model with its blocks.
        metrics: gathers validation figures by `update(outputs, batch)`, `compute`, `reset`, over all processes.
        setup: optimiser, schedule, seed, memory format.
    """

    fewest_images: ClassVar[int] = 2  # batch norm over 1x1 maps cannot train on a single image

    def __init__(self, model: nn.Module, metrics: nn.Module, setup: Setup) -> None:
        super().__init__()
        self.format = torch.channels_last if setup.channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.format)  # type: ignore[call-overload]
        self.metrics: Any = metrics
        self.common = setup
        self.skipped: dict[str, str] = {}
        self._indices: list[int] = []

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """The loss that training lowers, of a model that does not compute its own; label smoothing belongs here."""
        raise NotImplementedError

    def batch_loss(self, batch: Any) -> Tensor:
        """The loss of a prepared training batch."""
        return self.loss(self(batch[0]), batch)

    def prepare(self, batch: Any) -> Any:
        """What is done to a training batch after it was read; mixup."""
        return batch

    def forward(self, images: Tensor) -> Any:
        return self.model(images.contiguous(memory_format=self.format))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive(self.common.seed, "step", self.current_epoch, batch_idx, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        self.note_errors(batch)
        loader: Any = self.trainer.train_dataloader
        wanted = loader.batch_size or self.fewest_images
        if len(batch[0]) < min(self.fewest_images, wanted):
            if self.trainer.world_size == 1:
                return None
            # every process has to take part in the gradients' exchange
            return sum((p.sum() for p in self.model.parameters()), torch.zeros((), device=self.device)) * 0.0
        self._indices = batch.indices.tolist()
        loss = self.batch_loss(self.prepare(batch))
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item())
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch[0]), sync_dist=True
        )
        return loss

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        limit = self.common.optimisation.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), limit)
        # With float16 the gradient scaler finds infinities by itself, skips the step and lowers its scale.
        if not torch.isfinite(norm) and self.trainer.precision != "16-mixed":
            raise self._not_finite("norm of the gradients", norm.item())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.note_errors(batch)
        if len(batch[0]):
            self.metrics.update(self(batch[0]), batch)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.metrics.compute().items():
            if isinstance(value, float):
                self.log(f"val_{name}", value, prog_bar=True, sync_dist=True)  # gathered already: equal in all
        self.metrics.reset()

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimiser(
            self.model, self.common.optimisation, steps=steps, epochs=self.trainer.max_epochs or 1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def note_errors(self, batch: Any) -> None:
        """Remember the unreadable images of a batch by path and reason; `RunFiles` keeps them with the run."""
        names = self.common.names["train" if self.training else "val"]
        for index, reason in batch.errors:
            self.skipped.setdefault(str(names[index]), reason)

    def _not_finite(self, what: str, value: float) -> NonFiniteError:
        files = [self.common.names["train"][index] for index in self._indices]
        return NonFiniteError(
            f"the {what} is {value} at step {self.global_step} (epoch {self.current_epoch + 1}); the batch: "
            f"{', '.join(files)}. The last good checkpoint is kept. "
            f"Lower lr (now {self.common.optimisation.lr:g}), lengthen warmup_epochs, or look at these files"
        )
