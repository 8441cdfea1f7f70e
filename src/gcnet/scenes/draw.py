"""Scenes of real digits whose cells can only be marked rightly by looking at another cell.

A scene is a picture of 48x48 with 4x4 cells of 12x12, one item in each. The tasks are all "mark cells":

- `cue`: every cell whose item has the class of the one shown inverted in the upper left corner. One and the same
  context serves all cells, which is what a global context block computes.
- `mirror`: every cell whose item has the class of the item in the mirrored column. Each cell needs its own context.
- `dial-1`, `dial-2`, `dial-3`: the lowest one, two or three rows are judged as in `mirror`, the others as in `cue`.
  Which rule holds is told by the place alone, which every cell knows: nothing new is to be recognised in between.
- `twice`: every cell whose class appears at least twice in the scene. It sounds like a comparison of pairs, but one
  context serves all cells: how often each class appears.

Items are of six classes, in `twice` of all ten. Half of the cells are to be marked, on average, whatever the class of
the item, so guessing scores a balanced accuracy of 0.5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.errors import GcnetError
from gcnet.scenes.items import Source, Split, load_items

TASKS = ("cue", "mirror", "dial-1", "dial-2", "dial-3", "twice")  # the place decides the draw: new ones at the end
MIRRORED_ROWS = {"cue": 0, "dial-1": 1, "dial-2": 2, "dial-3": 3, "mirror": 4}  # so many, from below
NUM_ITEMS = 6
NUM_TWICE = 10  # classes of `twice`: of six, sixteen cells could not hold eight that occur once
GRID = 4
CELL = 12
IGNORED = -1  # the label of the cue's own cell


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pictures with what is to be marked in them.

    `images` is (N, 1, 48, 48) float32 in [0, 1]; `labels` is (N, 4, 4) int64: 1 = to be marked, 0 = not, -1 = does not
    count; `cells` is (N, 4, 4) int64, the class of the item in each cell; `names` are the class names.
    """

    images: Tensor
    labels: Tensor
    cells: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """SHA-256 of pictures, labels and cells: equal data have equal fingerprints."""
        digest = hashlib.sha256()
        for tensor in (self.images, self.labels, self.cells):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def make_scenes(task: str, count: int, *, seed: int, split: Split = "train", items: Source = "digits") -> Scenes:
    """Compose scenes at random.

    Args:
        task: "cue", "dial-1", "dial-2", "dial-3", "mirror" or "twice".
        count: how many scenes; 0 is allowed.
        seed: the same seed gives the same scenes; the two splits of one seed have nothing in common.
        split: which pictures to draw from; a picture is in one split only.
        items: "digits" or "fashion".

    Raises:
        ValueError: an argument has a value that is not allowed.
        ItemsError: the pictures are not on this machine.

    Example:
        >>> scenes = make_scenes("cue", 3, seed=0)
        >>> scenes.images.shape, scenes.labels[0, 0, 0].item()
        (torch.Size([3, 1, 48, 48]), -1)
    """
    if task not in TASKS:
        raise GcnetError(f"task={task!r} is unknown; use one of {', '.join(TASKS)}")
    if count < 0:
        raise GcnetError(f"count={count} is negative; use 0 or more")
    pictures, starts, counts, names = _by_class(items, split, NUM_TWICE if task == "twice" else NUM_ITEMS)
    rng = np.random.default_rng([seed, TASKS.index(task), ("train", "test").index(split)])
    cells, labels = _twice(rng, count) if task == "twice" else _dial(rng, count, MIRRORED_ROWS[task])
    drawn = starts[cells] + (rng.random(cells.shape) * counts[cells]).astype(np.int64)
    tiles = pictures[drawn]
    if has_cue(task):
        tiles[:, 0, 0] = 1 - tiles[:, 0, 0]
    side = GRID * CELL
    images = torch.from_numpy(tiles.transpose(0, 1, 3, 2, 4).reshape(count, 1, side, side))
    return Scenes(images, torch.from_numpy(labels), torch.from_numpy(cells), names)


def has_cue(task: str) -> bool:
    """Whether the upper left corner shows the class that other cells are compared with."""
    return MIRRORED_ROWS.get(task, GRID) < GRID


def _dial(rng: np.random.Generator, count: int, mirrored: int) -> tuple[np.ndarray, np.ndarray]:
    if mirrored == GRID:
        return _mirror(rng, count)
    cells, labels = _cue(rng, count)
    if mirrored:
        for whole, part in zip((cells, labels), _mirror(rng, count), strict=True):
            whole[:, -mirrored:] = part[:, -mirrored:]
    return cells, labels


def _cue(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    cue = rng.integers(0, NUM_ITEMS, (count, 1, 1))
    equal = rng.random((count, GRID, GRID)) < 0.5
    other = (cue + rng.integers(1, NUM_ITEMS, (count, GRID, GRID))) % NUM_ITEMS
    cells = np.where(equal, cue, other)
    cells[:, 0, 0] = cue[:, 0, 0]
    labels = (cells == cue).astype(np.int64)
    labels[:, 0, 0] = IGNORED
    return cells, labels


def _mirror(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    left = rng.integers(0, NUM_ITEMS, (count, GRID, GRID // 2))
    equal = rng.random(left.shape) < 0.5
    other = (left + rng.integers(1, NUM_ITEMS, left.shape)) % NUM_ITEMS
    right = np.where(equal, left, other)
    cells = np.concatenate([left, right[:, :, ::-1]], axis=2)
    return cells, (cells == cells[:, :, ::-1]).astype(np.int64)


def _twice(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight classes once each, the other two in the other eight cells, each at least twice; at random places."""
    classes = rng.permuted(np.tile(np.arange(NUM_TWICE), (count, 1)), axis=1)
    single, first, second = classes[:, :8], classes[:, 8:9], classes[:, 9:]
    of_first = np.arange(8) < rng.integers(2, 7, (count, 1))
    cells = np.concatenate([single, np.where(of_first, first, second)], axis=1)
    labels = np.tile(np.arange(GRID * GRID) >= 8, (count, 1)).astype(np.int64)
    places = rng.permuted(np.tile(np.arange(GRID * GRID), (count, 1)), axis=1)
    shape = (count, GRID, GRID)
    return (np.take_along_axis(cells, places, 1).reshape(shape), np.take_along_axis(labels, places, 1).reshape(shape))


@cache
def _by_class(items: Source, split: Split, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pictures of the first classes at 12x12, sorted by class; where each class starts and how many it has."""
    source = load_items(items, split)
    wanted = np.flatnonzero(source.labels < classes)
    wanted = wanted[np.argsort(source.labels[wanted], kind="stable")]
    pictures = torch.from_numpy(source.images[wanted])[:, None].float() / 255
    small = F.interpolate(pictures, size=(CELL, CELL), mode="area")
    counts = np.bincount(source.labels[wanted], minlength=classes)
    return small[:, 0].numpy(), np.cumsum(counts) - counts, counts, source.names[:classes]
