"""Whole jobs as plain functions: `train`, `evaluate`, `predict`, `compare`, `demo`, `analyze`, `profile`, `fold`,
`simplify`, `export`, `convert`; each is also a command. They load on first use: `gcnet --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gcnet.tasks.settings import Settings as Settings

if TYPE_CHECKING:
    from gcnet.recipes.analysis import analyze as analyze
    from gcnet.recipes.comparison import compare as compare
    from gcnet.recipes.conversion import convert as convert
    from gcnet.recipes.exporting import export as export
    from gcnet.recipes.folding import fold as fold
    from gcnet.recipes.prediction import predict as predict
    from gcnet.recipes.profiling import profile as profile
    from gcnet.recipes.run.evaluation import evaluate as evaluate
    from gcnet.recipes.run.folder import Run as Run
    from gcnet.recipes.run.training import train as train
    from gcnet.recipes.simplification import simplify as simplify
    from gcnet.scenes.demo import demo as demo

_WHERE = {
    "Run": "gcnet.recipes.run.folder",
    "analyze": "gcnet.recipes.analysis",
    "compare": "gcnet.recipes.comparison",
    "convert": "gcnet.recipes.conversion",
    "demo": "gcnet.scenes.demo",
    "evaluate": "gcnet.recipes.run.evaluation",
    "export": "gcnet.recipes.exporting",
    "fold": "gcnet.recipes.folding",
    "predict": "gcnet.recipes.prediction",
    "profile": "gcnet.recipes.profiling",
    "simplify": "gcnet.recipes.simplification",
    "train": "gcnet.recipes.run.training",
}

__all__ = ["Settings", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gcnet.recipes' has no attribute {name!r}")
