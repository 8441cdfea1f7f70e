"""Classifiers and detectors of torchvision and timm, with blocks, weights and a record of how they were made."""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
