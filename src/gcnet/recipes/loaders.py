"""Batches in an order that depends on (seed, epoch) alone, for one process or several."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, DistributedSampler

from gcnet.recipes.settings import Settings
from gcnet.recipes.sources import SeededItems, Source
from gcnet.tasks.seeds import derive


class EpochSampler(DistributedSampler[Any]):
    """A new order every epoch, decided by (seed, epoch) alone; tells the dataset which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if isinstance(self.dataset, SeededItems):
            self.dataset.epoch = epoch


def train_loader(
    source: Source, *, batch_size: int, workers: int, seed: int, rank: int = 0, world: int = 1
) -> DataLoader[Any]:
    """Shuffled batches of the training part; an incomplete last one is left out unless it is the only one."""
    dataset = source.datasets["train"]
    sampler = EpochSampler(dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=source.collate,
        drop_last=len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(derive(seed, "loader")),
    )


def eval_loader(
    source: Source, split: str, *, batch_size: int, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Any]:
    """All examples of a part, in order."""
    dataset = source.datasets[split]
    sampler = DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=False) if world > 1 else None
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=source.collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # else every pass would draw from the global generator
    )


class RunData(lightning.LightningDataModule):
    """The loaders of a run, made anew in every process that takes part."""

    def __init__(self, source: Source, settings: Settings) -> None:
        super().__init__()
        self.source = source
        self.settings = settings

    def train_dataloader(self) -> DataLoader[Any]:
        return train_loader(self.source, seed=self.settings.seed, **self._common())

    def val_dataloader(self) -> Any:
        return eval_loader(self.source, "val", **self._common()) if "val" in self.source.datasets else []

    def _common(self) -> dict[str, int]:
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return {
            "batch_size": self.settings.batch_size,
            "workers": self.settings.workers,
            "rank": rank,
            "world": world,
        }
