"""Images with labels, boxes or masks: reading files, folder and CSV layouts, datasets, transforms. Knows no model."""

from gcnet.data.classification.datasets import Batch, ImageDataset, Item, collate
from gcnet.data.classification.folders import ClassificationData, DataWarning, Sample, fingerprint, load_classification
from gcnet.data.classification.transforms import eval_transform, train_transform
from gcnet.data.detection.annotations import Annotated, DetectionData, Instance
from gcnet.data.detection.datasets import DetectionBatch, DetectionDataset, DetectionItem, collate_detection
from gcnet.data.detection.layouts import load_detection
from gcnet.data.detection.transforms import detection_eval_transform, detection_train_transform
from gcnet.data.images import read_image
from gcnet.errors import DataError, ImageError

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
