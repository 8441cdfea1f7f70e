"""Detectors with a feature pyramid: torchvision's parts, and what they lack for mmdetection's numerics."""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
