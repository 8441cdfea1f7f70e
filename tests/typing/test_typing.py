"""The package says its types (`py.typed`): a user's script that uses every public name passes a type checker."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "user_script.py"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["gcnet", "gcnet.recipes", "gcnet.models", "gcnet.data"])
def test_the_script_uses_every_public_name(package):
    own = package.rpartition(".")[2]
    nodes = ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8")))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == own}
    assert used >= set(import_module(package).__all__)


@pytest.mark.parametrize("package", ["gcnet", "gcnet.recipes", "gcnet.models", "gcnet.data", "gcnet.tasks"])
def test_every_name_that_a_stub_lists_can_be_reached(package):
    module = import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.slow
def test_the_script_passes_the_type_checker():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(SCRIPT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 errors" in done.stdout
