"""The names that other code may rely on, and what importing the package costs."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gcnet

NAMES = {
    "Analysis",
    "Checkpoint",
    "CheckpointError",
    "Profile",
    "__version__",
    "accelerate",
    "analyze",
    "blocks",
    "create_block",
    "create_model",
    "deform",
    "fold",
    "insert",
    "inserted",
    "list_blocks",
    "list_models",
    "load_checkpoint",
    "ops",
    "profile",
    "save_checkpoint",
    "simplify",
}


def test_the_public_names_are_these():
    assert set(gcnet.__all__) == NAMES
    assert len(gcnet.__all__) == len(NAMES)


def test_dir_shows_every_public_name():
    assert set(dir(gcnet)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_can_be_reached(name):
    assert getattr(gcnet, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'gcnet' has no attribute 'isnert'"):
        gcnet.isnert  # noqa: B018


def test_the_version_is_that_of_the_package():
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert gcnet.__version__ == pyproject["project"]["version"]


def test_import_and_command_line_load_neither_torch_nor_lightning():
    code = "import sys, gcnet.cli; print([m for m in ('torch', 'timm', 'lightning', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_name_of_ops_hides_a_module():
    hidden = [
        m.name
        for m in pkgutil.iter_modules(gcnet.ops.__path__)
        if not inspect.ismodule(getattr(gcnet.ops, m.name, importlib.import_module(f"gcnet.ops.{m.name}")))
    ]
    assert hidden == []
