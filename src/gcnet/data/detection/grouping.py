"""Batches of images that all lie or all stand, so that padding them to one size wastes little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch.utils.data import Sampler

from gcnet.data.detection.annotations import Annotated
from gcnet.errors import GcnetError


def orientations(images: Sequence[Annotated]) -> list[int]:
    """0 for an image that lies or is square, 1 for one that stands."""
    return [int(image.height > image.width) for image in images]


class GroupedBatches(Sampler[list[int]]):
    """Batches of one group each, in the order in which a sampler fills them; the left-over ones are mixed.

    Args:
        sampler: gives the order of the indices; Lightning sets its epoch.
        groups: the group of every index.
        batch_size: images of a batch; an incomplete last one is left out unless it is the only one.
    """

    def __init__(self, sampler: Sampler[int], groups: Sequence[int], batch_size: int) -> None:
        if batch_size < 1:
            raise GcnetError(f"batch_size={batch_size}; it must be at least 1")
        self.sampler = sampler
        self.groups = groups
        self.batch_size = batch_size

    def __len__(self) -> int:
        return max(1, len(self.sampler) // self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[int, list[int]] = {}
        given = 0
        for index in self.sampler:
            batch = waiting.setdefault(self.groups[index], [])
            batch.append(index)
            if len(batch) == self.batch_size:
                given += 1
                yield waiting.pop(self.groups[index])
        for batch in self._mixed(waiting.values()):
            if len(batch) == self.batch_size or not given:
                given += 1
                yield batch

    def _mixed(self, batches: Iterable[list[int]]) -> Iterator[list[int]]:
        left = [index for batch in batches for index in batch]
        for start in range(0, len(left), self.batch_size):
            yield left[start : start + self.batch_size]
