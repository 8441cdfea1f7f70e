"""Classifiers and detectors of torchvision and timm, with blocks, weights and a record of how they were made."""

from gcnet.models.catalogue import list_models as list_models
from gcnet.models.create import create_model as create_model
from gcnet.models.detection import create_detector as create_detector
from gcnet.models.weights import WeightsError as WeightsError

__all__ = ["WeightsError", "create_detector", "create_model", "list_models"]
