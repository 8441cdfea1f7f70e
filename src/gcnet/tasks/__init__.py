"""What a model is trained for: losses, metrics, optimiser and the files of a run, on Lightning.

The names load on first use: settings and the table of tasks need neither torch nor Lightning.
"""

from gcnet.lazy import attach

__all__, __getattr__, __dir__ = attach(__name__)
