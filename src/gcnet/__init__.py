"""Global context for vision models: blocks, and the rewrites that put them into the model you already have.

The public names load on first use, so that `gcnet --help` does not wait for torch.
"""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
