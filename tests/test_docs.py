"""The README and the guides: their code runs, their command lines exist, their links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from mktestdocs import check_md_file, grab_code_blocks

import gcnet
from gcnet.blocks import CATALOGUE, list_blocks
from gcnet.blocks.catalogue import block_options
from gcnet.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def _command_lines() -> list[tuple[str, str]]:
    """(page, command line) of every line in a bash block that calls `gcnet`, perhaps after settings of variables."""
    blocks = [(page.name, block) for page in PAGES for block in grab_code_blocks(page.read_text(), lang="bash")]
    lines = [(page, line.split("  #")[0].strip()) for page, block in blocks for line in block.splitlines()]
    return [(page, line) for page, line in lines if re.match(r"(\w+=\S+ )*gcnet ", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_md_file(page, memory=True)


def test_every_command_line_names_a_command_and_options_that_exist():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = _command_lines()
    assert len(lines) >= 10
    for page, line in lines:
        words = shlex.split(line)
        words = words[words.index("gcnet") + 1 :]
        assert words[0] in commands or words[0] in ("--help", "--version"), f"{page}: {line}"
        known = {text for p in commands[words[0]].params for text in (*p.opts, *p.secondary_opts)}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in {*known, "--help"}]
        assert not unknown, f"{page}: {line}: {unknown} is not among {sorted(known)}"


def test_the_table_of_blocks_is_that_of_the_catalogue():
    text = (ROOT / "docs" / "guide-blocks.md").read_text(encoding="utf-8")
    rows = {cells[0]: cells for cells in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|(.*)\|$", text, re.MULTILINE)}
    assert list(rows) == list_blocks()
    for name, _, cost, dims, options in rows.values():
        known = [option for option in block_options(name) if option not in ("device", "dtype")]
        if "all of `context`" in options:
            options = rows["context"][4]
        assert re.findall(r"`(\w+)`", options) == known, name
        assert cost.strip().split(";")[0] == CATALOGUE[name].complexity, name
        assert re.findall(r"(\d)D", dims) == [str(n) for n in CATALOGUE[name].dims], name


def test_the_reference_has_an_entry_for_every_public_name():
    entries = re.findall(r"^::: gcnet\.(\S+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert set(gcnet.__all__) - {"__version__", "blocks", "ops"} <= set(entries)
    assert {name.split(".")[0] for name in entries} >= {"blocks", "ops"}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    assert not missing


def test_every_row_of_measured_results_links_to_a_results_file():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Measured")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 2, "the table's header is missing"
    without = [row for row in rows[2:] if "](benchmarks/results/" not in row]
    assert not without
