"""Images and their labels: reading files, folder and CSV layouts, datasets, transforms. Knows no model."""

from gcnet.data.datasets import Batch, ImageDataset, Item, collate
from gcnet.data.folders import ClassificationData, DataError, DataWarning, Sample, fingerprint, load_classification
from gcnet.data.images import ImageError, read_image
from gcnet.data.transforms import eval_transform, train_transform

__all__ = [
    "Batch",
    "ClassificationData",
    "DataError",
    "DataWarning",
    "ImageDataset",
    "ImageError",
    "Item",
    "Sample",
    "collate",
    "eval_transform",
    "fingerprint",
    "load_classification",
    "read_image",
    "train_transform",
]
