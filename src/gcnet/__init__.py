"""Global context for vision models: blocks, and the rewrites that put them into the model you already have.

The public names load on first use, so that `gcnet --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gcnet.version import __version__ as __version__

if TYPE_CHECKING:
    from gcnet import blocks as blocks
    from gcnet import ops as ops
    from gcnet.blocks import create_block as create_block
    from gcnet.blocks import list_blocks as list_blocks
    from gcnet.checkpoints import Checkpoint as Checkpoint
    from gcnet.checkpoints import CheckpointError as CheckpointError
    from gcnet.checkpoints import load_checkpoint as load_checkpoint
    from gcnet.checkpoints import save_checkpoint as save_checkpoint
    from gcnet.models import create_model as create_model
    from gcnet.models import list_models as list_models
    from gcnet.report.analysis import Analysis as Analysis
    from gcnet.report.analysis import analyze as analyze
    from gcnet.report.profile import Profile as Profile
    from gcnet.report.profile import profile as profile
    from gcnet.rewrites import accelerate as accelerate
    from gcnet.rewrites import deform as deform
    from gcnet.rewrites import fold as fold
    from gcnet.rewrites import insert as insert
    from gcnet.rewrites import inserted as inserted
    from gcnet.rewrites.simplification import simplify as simplify

_WHERE = {
    "create_block": "gcnet.blocks",
    "list_blocks": "gcnet.blocks",
    "accelerate": "gcnet.rewrites",
    "deform": "gcnet.rewrites",
    "insert": "gcnet.rewrites",
    "inserted": "gcnet.rewrites",
    "fold": "gcnet.rewrites",
    "create_model": "gcnet.models",
    "list_models": "gcnet.models",
    "Checkpoint": "gcnet.checkpoints",
    "CheckpointError": "gcnet.checkpoints",
    "load_checkpoint": "gcnet.checkpoints",
    "save_checkpoint": "gcnet.checkpoints",
    "profile": "gcnet.report.profile",
    "Profile": "gcnet.report.profile",
    "analyze": "gcnet.report.analysis",
    "Analysis": "gcnet.report.analysis",
    "simplify": "gcnet.rewrites",
}
_PACKAGES = (
    *("analysis", "blocks", "checkpoints", "data", "errors", "exporters", "files", "models", "ops", "recipes"),
    *("report", "rewrites", "scenes", "surgery", "tasks"),
)

__all__ = ["__version__", "blocks", "ops", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _PACKAGES:
        return import_module(f"gcnet.{name}")
    raise AttributeError(f"module 'gcnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
