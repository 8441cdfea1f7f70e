"""Labelled images as a torch dataset whose bad files are skipped, named and counted instead of stopping a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from gcnet.data.classification.samples import Sample
from gcnet.data.images import read_image
from gcnet.errors import GcnetError, ImageError


class Item(NamedTuple):
    """One image of a dataset, or (image None) why it could not be read."""

    image: Tensor | None
    label: int
    index: int
    error: str | None


class Batch(NamedTuple):
    """The readable images of a batch: (B, 3, H, W), (B,), (B,), and (index, reason) of the others; B may be 0."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    errors: list[tuple[int, str]]


class ImageDataset(Dataset[Item]):
    """Images read from their files and transformed; `skipped` maps each unreadable file to the reason.

    An unreadable file gives an `Item` without image, which `collate` turns into an entry of `Batch.errors`. With
    worker processes these entries are all that reaches the main process: hand them to `record` there.

    Args:
        samples: path and label of every image.
        transform: PIL RGB image -> float tensor (3, H, W).
        cache: keep decoded images as uint8, so that every file is read once. An image whose short side exceeds
            `cache_side` is kept (and used) reduced to that; smaller ones are kept as they are. Each worker process
            would fill a cache of its own: with workers call `fill` before they start.
        cache_side: short side in pixels of the largest image kept; at least the transform's resize.
        cache_bytes: memory limit of the cache over all workers; when it is full, further images are read anew.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Image.Image], Tensor],
        *,
        cache: bool = False,
        cache_side: int = 512,
        cache_bytes: int = 4 * 1024**3,
    ) -> None:
        if cache_side < 1:
            raise GcnetError(f"cache_side={cache_side}; it must be at least 1 pixel")
        if cache_bytes < 0:
            raise GcnetError(f"cache_bytes={cache_bytes}; it must be at least 0")
        self.samples = tuple(samples)
        self.transform = transform
        self.cache = cache
        self.cache_side = cache_side
        self.cache_bytes = cache_bytes
        self.skipped: dict[str, str] = {}
        self._kept: dict[int, np.ndarray] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        path, label = self.samples[index]
        index = range(len(self))[index]
        error = self.skipped.get(str(path))
        if error is not None:
            return Item(None, label, index, error)
        try:
            image = self._image(index)
        except ImageError as failure:
            self.record([(index, failure.reason)])
            return Item(None, label, index, failure.reason)
        return Item(self.transform(image), label, index, None)

    def record(self, errors: Sequence[tuple[int, str]]) -> None:
        """Note unreadable images, as `Batch.errors` lists them, in `skipped`; repeated notes count once."""
        for index, reason in errors:
            self.skipped.setdefault(str(self.samples[index].path), reason)

    def fill(self) -> int:
        """Read every image into the cache now, as far as `cache_bytes` allows; return how many it holds.

        Worker processes started by fork afterwards share the memory.
        """
        if not self.cache:
            raise GcnetError("cache=False; only a dataset with cache=True can be filled")
        for index, (path, _) in enumerate(self.samples):
            if self._kept_bytes >= self.cache_bytes:
                break
            if str(path) not in self.skipped:
                try:
                    self._image(index)
                except ImageError as failure:
                    self.record([(index, failure.reason)])
        return len(self._kept)

    def _image(self, index: int) -> Image.Image:
        if index in self._kept:
            return Image.fromarray(self._kept[index])
        image = read_image(self.samples[index].path)
        if not self.cache:
            return image
        image = reduce_to(image, self.cache_side)
        pixels = np.asarray(image)
        worker = get_worker_info()
        limit = self.cache_bytes // (worker.num_workers if worker else 1)
        if self._kept_bytes + pixels.nbytes <= limit:
            self._kept[index] = pixels
            self._kept_bytes += pixels.nbytes
        return image


def reduce_to(image: Image.Image, side: int) -> Image.Image:
    """The image with its short side reduced to `side` pixels; a smaller one unchanged.

    Example:
        >>> from PIL import Image
        >>> reduce_to(Image.new("RGB", (400, 200)), 100).size
        (200, 100)
    """
    short = min(image.size)
    if short <= side:
        return image
    width, height = (max(side, round(length * side / short)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def collate(items: Sequence[Item]) -> Batch:
    """Stack the readable images and list the others; for `DataLoader(collate_fn=collate)`."""
    good = [item for item in items if item.image is not None]
    images = [item.image for item in good if item.image is not None]
    return Batch(
        torch.stack(images) if images else torch.empty(0, 3, 0, 0),
        torch.tensor([item.label for item in good], dtype=torch.int64),
        torch.tensor([item.index for item in good], dtype=torch.int64),
        [(item.index, item.error or "unreadable") for item in items if item.image is None],
    )
