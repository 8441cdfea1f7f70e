"""`gcnet blocks` lists what the catalogue holds."""

import re

import pytest
import rich.console
from typer.testing import CliRunner

from gcnet.blocks import create_block
from gcnet.blocks.catalogue import CATALOGUE
from gcnet.cli import app


def test_every_block_is_listed_with_paper_and_parameters(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["blocks"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.split()}
    for name, entry in CATALOGUE.items():
        assert entry.title in lines[name]
        assert entry.paper in lines[name]
        assert entry.complexity in lines[name]
        for width in (256, 1024):
            size = sum(parameter.numel() for parameter in create_block(name, width).parameters())
            assert f" {size:,}" in lines[name]


@pytest.mark.parametrize("columns", [80, 100, 150])
def test_the_table_fits_the_terminal_without_cut_words(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    result = CliRunner().invoke(app, ["blocks"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.output).splitlines()
    assert "…" not in result.output
    assert len([line for line in lines if line.split()[:1] and line.split()[0] in CATALOGUE]) == len(CATALOGUE)
    assert max(len(line.rstrip()) for line in lines) <= columns
