"""Who imports whom: no circle between files, rooms point downwards, outside packages stay where they belong.

The graph is read from the text of every file, with the imports under TYPE_CHECKING and inside functions; a package
imports what its stub lists. Addresses in literal tables ("gcnet.scenes.spec:SPEC") are no imports.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

# From the top down. A room imports what is below it, never one beside it; the corridors import each other only.
ROOMS = (
    ("gcnet",),
    ("cli",),
    ("scenes",),
    ("recipes",),
    ("report",),
    ("analysis", "exporters", "tasks"),
    ("data",),
    ("checkpoints",),
    ("models",),
    ("rewrites",),
    ("surgery",),
    ("blocks",),
    ("ops",),
    ("files", "errors", "version", "distributed", "lazy"),
)
CORRIDORS = ROOMS[-1]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

# A public name that a package hands out on first use, though the file stands above it.
HANDED_OUT = {("gcnet.recipes", "gcnet.scenes.demo")}

# Outside package -> the only places that import it: files, or folders that end in "/".
OUTSIDE = {
    "lightning": (
        *("tasks/run_files.py", "tasks/step.py"),
        *("recipes/run/fit.py", "recipes/run/training.py"),
    ),
    "torchmetrics": ("tasks/classification/metrics.py", "scenes/task.py"),
    "matplotlib": ("report/figure.py", "report/plots.py"),
    "jinja2": ("report/page.py",),
    "triton": ("ops/",),
    "typer": ("cli/",),
    "safetensors": ("files/tensors.py", "checkpoints/save.py"),
    "timm": ("blocks/", "checkpoints/", "models/", "rewrites/folding/", "tasks/optimiser.py"),
    "torchvision": (
        *("analysis/", "checkpoints/", "data/", "models/", "report/attention.py", "surgery/"),
        *("tasks/classification/", "tasks/detection/"),
    ),
}


@cache
def files() -> dict[str, Path]:
    """Module -> its file."""
    found = {}
    for path in sorted((SOURCE / "gcnet").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def short(module: str) -> str:
    """The path inside `src/gcnet`, as the lists above name it."""
    return files()[module].relative_to(SOURCE / "gcnet").as_posix()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports(path: Path, package: str) -> Iterator[tuple[str, list[str]]]:
    """(what is imported from, the names that are) of every import statement of a file that lies in a package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = above[: len(above) - node.level + 1] if node.level else []
            yield ".".join([*base, *filter(None, [node.module])]), [alias.name for alias in node.names]


def inside(path: Path, package: str) -> set[str]:
    """The modules of gcnet that a file imports."""
    found: set[str] = set()
    for source, names in imports(path, package):
        if source.split(".")[0] == "gcnet":
            found |= {f"{source}.{name}" if f"{source}.{name}" in files() else source for name in names} or {source}
    return found


def package_of(module: str) -> str:
    return module if files()[module].name == "__init__.py" else module.rpartition(".")[0]


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules of gcnet that it imports."""
    edges = {}
    for module, path in files().items():
        both = [path, *path.parent.glob("__init__.pyi")] if path.name == "__init__.py" else [path]
        edges[module] = set().union(*(inside(one, package_of(module)) for one in both)) - {module}
    return edges


@cache
def outside() -> set[tuple[str, str]]:
    """(file, package outside of gcnet that it imports)."""
    return {
        (short(module), source.split(".")[0])
        for module, path in files().items()
        for source, _ in imports(path, package_of(module))
    }


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a circle; who imports nothing that is left is in none, and is taken away."""
    left, found = dict(edges), []
    while left:
        free = [module for module, targets in left.items() if not targets & left.keys()]
        if not free:
            walk = [min(left)]
            while (following := min(left[walk[-1]] & left.keys())) not in walk:
                walk.append(following)
            free = walk[walk.index(following) :]
            found.append(free)
        left = {module: targets for module, targets in left.items() if module not in free}
    return found


def upward(edges: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """(module, what it imports) where an import does not point downwards."""
    return {
        (module, target)
        for module, targets in edges.items()
        for own, target in ((room(module), target) for target in targets)
        if room(target) not in (own, *(CORRIDORS if own in CORRIDORS else ())) and LEVEL[room(target)] <= LEVEL[own]
    }


def lies_in(path: str, places: Iterable[str]) -> bool:
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def test_every_folder_and_file_of_the_package_is_a_room():
    assert {room(module) for module in files()} == set(LEVEL)


def test_no_files_import_each_other_in_a_circle():
    assert circles(graph()) == []


def test_rooms_import_only_what_is_below_them():
    assert upward(graph()) == HANDED_OUT


@pytest.mark.parametrize("package", OUTSIDE)
def test_packages_are_imported_only_where_they_belong(package):
    importers = {path for path, name in outside() if name == package}
    assert {path for path in importers if not lies_in(path, OUTSIDE[package])} == set()
    assert [place for place in OUTSIDE[package] if not any(lies_in(path, [place]) for path in importers)] == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from gcnet.report import page", "gcnet.report.page"),
        ("from gcnet.report.page import render", "gcnet.report.page"),
        ("import gcnet.ops", "gcnet.ops"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gcnet import cli", "gcnet.cli"),
        ("def f():\n    from gcnet.errors import some", "gcnet.errors"),
        ("from . import page", "gcnet.report.page"),
        ("from ..errors import some", "gcnet.errors"),
    ],
)
def test_the_graph_sees_every_kind_of_import(statement, found, tmp_path):
    (tmp_path / "new.py").write_text(statement)
    assert inside(tmp_path / "new.py", "gcnet.report") == {found}


def test_circles_and_steps_upwards_are_found():
    edges = {"gcnet.ops.a": {"gcnet.ops.b"}, "gcnet.ops.b": {"gcnet.ops.a", "gcnet.errors"}, "gcnet.errors": set()}
    assert circles(edges) == [["gcnet.ops.a", "gcnet.ops.b"]]
    assert upward(edges) == set()
    assert upward({"gcnet.tasks.a": {"gcnet.analysis.b", "gcnet.report.c", "gcnet.data.d", "gcnet.tasks.e"}}) == {
        ("gcnet.tasks.a", "gcnet.analysis.b"),
        ("gcnet.tasks.a", "gcnet.report.c"),
    }
    assert upward({"gcnet.files.a": {"gcnet.errors"}, "gcnet.errors": {"gcnet.ops"}}) == {("gcnet.errors", "gcnet.ops")}
