"""Whole jobs as plain functions: `train`, `evaluate`, `predict`, `compare`, `demo`, `analyze`, `profile`, `fold`,
`simplify`, `export`, `convert`; each is also a command. They load on first use: `gcnet --help` does not wait for torch.
"""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
