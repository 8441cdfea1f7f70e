"""Whole jobs as plain functions: `train`, `evaluate`, `predict`, `compare`, `demo`, `fold`, `simplify`, `export`;
each is also a command.

They load on first use, so that `gcnet --help` does not wait for torch. Each function has the name of its module;
`gcnet.recipes.train` is always the function, and `from gcnet.recipes.train import Run` still reaches the module.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcnet.recipes.analyze import analyze as analyze
    from gcnet.recipes.compare import compare as compare
    from gcnet.recipes.convert import convert as convert
    from gcnet.recipes.demo import demo as demo
    from gcnet.recipes.evaluate import evaluate as evaluate
    from gcnet.recipes.export import export as export
    from gcnet.recipes.fold import fold as fold
    from gcnet.recipes.predict import predict as predict
    from gcnet.recipes.simplify import simplify as simplify
    from gcnet.recipes.train import Run as Run
    from gcnet.recipes.train import train as train

from gcnet.recipes.settings import Settings as Settings

__all__ = [
    "Run",
    "Settings",
    "analyze",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "export",
    "fold",
    "predict",
    "simplify",
    "train",
]


class _Function:
    """The function of a module that has its name; the import system's own binding of the module is passed over."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, package: ModuleType, kind: type) -> Any:
        return getattr(import_module(f"{__name__}.{self.name}"), self.name)

    def __set__(self, package: ModuleType, value: Any) -> None:
        if not isinstance(value, ModuleType):
            raise AttributeError(f"gcnet.recipes.{self.name} cannot be replaced")


class _Recipes(ModuleType):
    analyze = _Function("analyze")
    compare = _Function("compare")
    convert = _Function("convert")
    demo = _Function("demo")
    evaluate = _Function("evaluate")
    export = _Function("export")
    fold = _Function("fold")
    predict = _Function("predict")
    simplify = _Function("simplify")
    train = _Function("train")

    @property
    def Run(self) -> Any:
        return import_module(f"{__name__}.train").Run


sys.modules[__name__].__class__ = _Recipes
