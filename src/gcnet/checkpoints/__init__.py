"""Saved models: safetensors whose header says how to build the model that the tensors fill."""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
