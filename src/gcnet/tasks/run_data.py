"""The loaders of a run, as Lightning asks for them."""

from __future__ import annotations

from typing import Any

import lightning
from torch.utils.data import DataLoader

from gcnet.data.loading import ResumableLoader, eval_loader, train_loader
from gcnet.data.source import Source
from gcnet.tasks.settings import Settings


class RunData(lightning.LightningDataModule):
    """The loaders of a run, made anew in every process that takes part."""

    def __init__(self, source: Source, settings: Settings) -> None:
        super().__init__()
        self.source = source
        self.settings = settings
        self._loader: ResumableLoader | None = None
        self._progress: dict[str, int] = {}

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
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return {
            "batch_size": self.settings.data.batch_size,
            "workers": self.settings.data.workers,
            "rank": rank,
            "world": world,
        }
