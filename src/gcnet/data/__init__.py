"""Images with labels, boxes or masks: reading files, folder and CSV layouts, datasets, transforms. Knows no model."""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
