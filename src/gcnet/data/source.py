"""The data of a run: its three parts as datasets, their names and fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from gcnet.data.classification.datasets import ImageDataset, collate
from gcnet.data.classification.folders import ClassificationData, fingerprint, load_classification
from gcnet.data.classification.transforms import eval_transform, train_transform
from gcnet.data.detection import annotations
from gcnet.data.detection.annotations import DetectionData
from gcnet.data.detection.datasets import DetectionDataset, collate_detection
from gcnet.data.detection.grouping import orientations
from gcnet.data.detection.transforms import detection_eval_transform, detection_train_transform
from gcnet.data.seeds import derive
from gcnet.errors import SettingsError


@dataclass(frozen=True)
class Source:
    """Datasets by split ("train", "val", "test"; those that have examples), names of their examples, the classes.

    Of annotated images also `truth`, the objects in COCO's format by split, and `groups`, the orientation of each
    training image. `files` says whether the examples are files, some of which may be unreadable; `others` are splits
    that there are and that were not opened.
    """

    datasets: Mapping[str, Dataset[Any]]
    names: Mapping[str, Sequence[str]]
    classes: tuple[str, ...]
    fingerprint: str
    collate: Callable[..., Any] | None = None
    truth: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Sequence[int] | None = None
    files: bool = True
    others: tuple[str, ...] = ()

    def fill_caches(self) -> None:
        """Read the images into memory now, so that worker processes share them."""
        for dataset in self.datasets.values():
            images = dataset.items if isinstance(dataset, SeededItems) else dataset
            if isinstance(images, ImageDataset):
                images.fill()


def open_images(
    data: ClassificationData,
    preprocessing: Mapping[str, Any] | None,
    *,
    augment: bool = True,
    cache: bool = False,
    seed: int = 0,
) -> Source:
    """Photographs and their labels; the training part augmented, unless told otherwise."""
    if preprocessing is None:
        raise SettingsError("this model does not read photographs; use it with task='scenes'")
    parts = {split: getattr(data, split) for split in ("train", "val", "test") if getattr(data, split)}
    side = max(512, preprocessing["resize"])
    datasets: dict[str, Dataset[Any]] = {}
    for split, samples in parts.items():
        augmented = augment and split == "train"
        transform = train_transform(preprocessing) if augmented else eval_transform(preprocessing)
        dataset = ImageDataset(samples, transform, cache=cache, cache_side=side)
        datasets[split] = SeededItems(dataset, seed) if augmented else dataset
    names = {split: [str(sample.path) for sample in samples] for split, samples in parts.items()}
    return Source(datasets, names, data.classes, fingerprint(data), collate)


def open_objects(
    data: DetectionData,
    *,
    masks: bool,
    sizes: Sequence[int] | None = None,
    max_size: int = 0,
    photometric: bool = False,
    seed: int = 0,
) -> Source:
    """Annotated images; the training part resized and mirrored, if `sizes` are given, the others as they are.

    Args:
        data: what `gcnet.data.load_detection` found.
        masks: whether the objects' masks are read.
        sizes, max_size, photometric: see `gcnet.data.detection_train_transform`.
        seed: of the run.
    """
    parts = {split: getattr(data, split) for split in ("train", "val", "test") if getattr(data, split)}
    plain = detection_eval_transform()
    datasets: dict[str, Dataset[Any]] = {
        split: DetectionDataset(images, plain, masks=masks) for split, images in parts.items()
    }
    if "train" in parts and sizes is not None:
        transform = detection_train_transform(sizes=sizes, max_size=max_size, photometric=photometric)
        datasets["train"] = SeededItems(DetectionDataset(parts["train"], transform, masks=masks), seed)
    return Source(
        datasets,
        {split: [str(image.path) for image in images] for split, images in parts.items()},
        data.classes,
        annotations.fingerprint(data),
        collate_detection,
        truth={split: annotations.as_coco(images, data.classes) for split, images in parts.items()},
        groups=orientations(data.train),
    )


def open_photographs(path: str) -> ClassificationData:
    """The images under a folder or in a CSV file; the split is the same for every run."""
    data = load_classification(path)
    if not data.train:
        raise SettingsError(f"data={path!r} holds no training images")
    return data


class SeededItems(Dataset[Any]):
    """A dataset whose random augmentation of an item depends on (seed, epoch, index) alone.

    So the number of workers, an interruption or a model that draws random numbers change nothing.
    """

    def __init__(self, items: ImageDataset | DetectionDataset, seed: int) -> None:
        self.items = items
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "item", self.epoch, index))
            return self.items[index]
