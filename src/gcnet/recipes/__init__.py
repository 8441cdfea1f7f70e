"""Whole jobs as plain functions: `train`, `evaluate`, `predict`, `compare`, `demo`, `fold`, `simplify`, `export`;
each is also a command. They load on first use, so that `gcnet --help` does not wait for torch.
"""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
