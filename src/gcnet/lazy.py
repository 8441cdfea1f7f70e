"""What loads on first use: addresses in tables, and names that a package lists, once, in its stub `__init__.pyi`."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def loaded(address: str) -> Any:
    """What stands at "package.module:name"."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def attach(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """The `__all__`, `__getattr__` and `__dir__` of a package: what its stub imports `as` itself, and its modules.

    Example:
        >>> import gcnet.checkpoints
        >>> names, get, _ = attach("gcnet.checkpoints")
        >>> "load_checkpoint" in names, get("load_checkpoint").__module__
        (True, 'gcnet.checkpoints.load')
    """
    where = _names(Path(str(sys.modules[package].__file__)).with_suffix(".pyi"))

    def get(name: str) -> Any:
        if name in where and where[name] != package:
            return loaded(f"{where[name]}:{name}")
        if find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return list(where), get, lambda: sorted({*vars(sys.modules[package]), *where})


def _names(stub: Path) -> dict[str, str]:
    """Each name that a stub hands out -> the module it is in."""
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: str(node.module) for node in imports for alias in node.names if alias.asname}
