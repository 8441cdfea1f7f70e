"""Scenes as the data of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from gcnet.data.source import Source
from gcnet.scenes.draw import Scenes, make_scenes

SCENE_COUNTS = {"train": 4000, "val": 500, "test": 1000}


class SceneBatch(NamedTuple):
    """Scenes of a batch: (B, 1, 48, 48), (B, 4, 4), (B, 4, 4), (B,); none can be unreadable."""

    images: Tensor
    labels: Tensor
    cells: Tensor
    indices: Tensor
    errors: tuple[()] = ()


def collate_scenes(items: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> SceneBatch:
    """Gather scenes into a batch."""
    images, labels, cells, indices = (torch.stack(column) for column in zip(*items, strict=True))
    return SceneBatch(images, labels, cells, indices)


def open_scenes(name: str, splits: Sequence[str] = ("train", "val", "test")) -> Source:
    """Scenes of digits or clothes. Validation scenes are new scenes of training items, test scenes of unseen items."""
    task, _, items = name.partition("/")
    parts = {split: _scenes(task, split, items or "digits") for split in splits}
    datasets: dict[str, Dataset[Any]] = {
        split: TensorDataset(part.images, part.labels, part.cells, torch.arange(len(part)))
        for split, part in parts.items()
    }
    names = {split: [f"{split} scene {index} of {name}" for index in range(len(part))] for split, part in parts.items()}
    digest = hashlib.sha256("".join(part.fingerprint() for part in parts.values()).encode()).hexdigest()
    classes = next(iter(parts.values())).names
    others = tuple(split for split in SCENE_COUNTS if split not in parts)
    return Source(datasets, names, classes, digest, collate_scenes, files=False, others=others)


def _scenes(task: str, split: str, items: Any) -> Scenes:
    seed = {"train": 1, "test": 2, "val": 3}[split]  # fixed: the seed of a run does not change its data
    return make_scenes(task, SCENE_COUNTS[split], seed=seed, split="test" if split == "test" else "train", items=items)
