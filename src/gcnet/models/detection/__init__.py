"""Detectors with a feature pyramid: torchvision's parts, and what they lack for mmdetection's numerics."""

from gcnet.models.detection.create import DETECTORS as DETECTORS
from gcnet.models.detection.create import create_detector as create_detector
from gcnet.models.detection.create import is_detector as is_detector

__all__ = ["DETECTORS", "create_detector", "is_detector"]
