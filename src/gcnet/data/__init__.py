"""Images with labels, boxes or masks: reading files, folder and CSV layouts, datasets, transforms. Knows no model."""

from gcnet.data.annotations import Annotated, DetectionData, Instance
from gcnet.data.datasets import Batch, ImageDataset, Item, collate
from gcnet.data.detection import load_detection
from gcnet.data.detection_dataset import DetectionBatch, DetectionDataset, DetectionItem, collate_detection
from gcnet.data.detection_transforms import detection_eval_transform, detection_train_transform
from gcnet.data.folders import ClassificationData, DataError, DataWarning, Sample, fingerprint, load_classification
from gcnet.data.images import ImageError, read_image
from gcnet.data.transforms import eval_transform, train_transform

__all__ = [
    "Annotated",
    "Batch",
    "ClassificationData",
    "DataError",
    "DataWarning",
    "DetectionBatch",
    "DetectionData",
    "DetectionDataset",
    "DetectionItem",
    "ImageDataset",
    "ImageError",
    "Instance",
    "Item",
    "Sample",
    "collate",
    "collate_detection",
    "detection_eval_transform",
    "detection_train_transform",
    "eval_transform",
    "fingerprint",
    "load_classification",
    "load_detection",
    "read_image",
    "train_transform",
]
