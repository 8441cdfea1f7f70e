"""Batches in an order that depends on (seed, epoch) alone, for one process or several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from gcnet.data.detection.grouping import GroupedBatches
from gcnet.data.seeds import derive
from gcnet.data.source import SeededItems, Source


class EpochSampler(DistributedSampler[Any]):
    """A new order every epoch, decided by (seed, epoch) alone; tells the dataset which epoch it is."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if isinstance(self.dataset, SeededItems):
            self.dataset.epoch = epoch


class ResumableLoader(DataLoader[Any]):
    """A loader that goes on in the middle of an epoch: batches given before are passed over without being read."""

    given = 0  # batches of this epoch
    _skip = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: nothing is drawn before the first batch is asked for, when the epoch has been set.
        self.given, self._skip = self._skip, 0
        loader = DataLoader(
            self.dataset,
            batch_sampler=list(self.batch_sampler or ())[self.given :],
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            pin_memory=self.pin_memory,
            worker_init_fn=self.worker_init_fn,
            generator=self.generator,
        )
        for batch in loader:
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._skip = state_dict["given"] % max(1, len(self))


def train_loader(
    source: Source, *, batch_size: int, workers: int, seed: int, rank: int = 0, world: int = 1
) -> ResumableLoader:
    """Shuffled batches of the training part; an incomplete last one is left out unless it is the only one."""
    dataset = source.datasets["train"]
    sampler = EpochSampler(dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed)
    common = _common(source, workers, derive(seed, "loader"))
    if source.groups is not None:
        return ResumableLoader(dataset, batch_sampler=GroupedBatches(sampler, source.groups, batch_size), **common)
    return ResumableLoader(dataset, batch_size, sampler=sampler, drop_last=len(sampler) >= batch_size, **common)


def eval_loader(
    source: Source, split: str, *, batch_size: int, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Any]:
    """All examples of a part, in order."""
    dataset = source.datasets[split]
    sampler = DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=False) if world > 1 else None
    return DataLoader(dataset, batch_size, sampler=sampler, **_common(source, workers, seed=0))


def _common(source: Source, workers: int, seed: int) -> dict[str, Any]:
    """Of all loaders; one without a generator of its own would draw from the global one with every pass."""
    return {
        "num_workers": workers,
        "collate_fn": source.collate,
        "pin_memory": torch.cuda.is_available(),
        "generator": torch.Generator().manual_seed(seed),
    }
