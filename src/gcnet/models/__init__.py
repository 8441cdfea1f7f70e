"""Classifiers and detectors of torchvision and timm, with blocks, weights and a record of how they were made."""

from gcnet.errors import WeightsError as WeightsError
from gcnet.models.catalogue import list_models as list_models
from gcnet.models.create import create_model as create_model
from gcnet.models.detection import create_detector as create_detector

__all__ = ["WeightsError", "create_detector", "create_model", "list_models"]
