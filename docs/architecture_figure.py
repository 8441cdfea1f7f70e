"""Draws figures/architecture.svg: the rooms of src/gcnet from the top down, and which imports from which.

python docs/architecture_figure.py
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "gcnet"
CONTRACT = DOCS.parent / "pyproject.toml"  # has the order of the rooms, from the top down
SAYS = {
    "cli": "parse, call, print",
    "scenes": "scenes of digits, the demo",
    "recipes": "a job each, files in, files out",
    "report": "pages, figures, tables",
    "analysis": "figures with intervals",
    "exporters": "files for other engines",
    "tasks": "what a model is trained for",
    "data": "images become examples",
    "checkpoints": "load and save, by source",
    "models": "names become models",
    "rewrites": "model in, model out",
    "surgery": "what rewrites share",
    "blocks": "parameters and a call of an op",
    "ops": "tensor in, tensor out",
    "files": "the reader of bytes",
    "errors": "what users are told",
    "version": "versions, hardware",
    "distributed": "several processes",
    "lazy": "names on first use",
}
INK, DOWN, UP = "#333a45", "#0072B2", "#D55E00"


def rooms() -> list[str]:
    contracts = tomllib.loads(CONTRACT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return [room.strip().removeprefix("gcnet.") for layer in contracts[0]["layers"] for room in layer.split("|")]


def imports() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Lines of each room, and from how many files of a room another is imported."""
    lines: Counter[str] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for path in SOURCE.rglob("*.py"):
        room = path.relative_to(SOURCE).with_suffix("").parts[0]
        text = path.read_text(encoding="utf-8")
        if room == "__init__":
            continue
        lines[room] += text.count("\n")
        names = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "gcnet":
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gcnet."):
                names.add((node.module or "").split(".")[1])
        found.update((room, name) for name in names & set(SAYS) - {room})
    return lines, found


def draw(path: Path) -> None:
    lines, found = imports()
    place = {room: -number for number, room in enumerate(rooms())}
    figure = Figure(figsize=(9.2, 6.4), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for room, y in place.items():
        axes.text(-8.4, y, room, va="center", color=INK, weight="bold")
        axes.text(-6.7, y, SAYS[room], va="center", color=INK, fontsize=8)
        axes.add_patch(Rectangle((-2.6, y - 0.3), lines[room] / 1200, 0.6, color="#c9d3df"))
        axes.text(-2.55, y, f"{lines[room]:,}", va="center", color=INK, fontsize=8)
    for (upper, lower), files in sorted(found.items(), key=lambda item: item[1]):
        colour = DOWN if place[lower] < place[upper] else UP
        reach = abs(place[upper] - place[lower])
        axes.add_patch(
            FancyArrowPatch(
                (0.08, place[upper]),
                (0.08, place[lower]),
                connectionstyle=f"arc3,rad={-0.55 if colour == DOWN else 0.55}",
                arrowstyle="-|>",
                mutation_scale=8,
                linewidth=0.4 + 0.22 * files,
                color=colour,
                alpha=0.25 + 0.5 / reach,
            )
        )
    axes.set_xlim(-8.5, 4.2)
    axes.set_ylim(-len(SAYS) + 0.2, 0.8)
    axes.text(-2.55, 0.62, "lines of code", color=INK, fontsize=8)
    axes.text(0.1, 0.62, "imports; the thicker, the more files", color=INK, fontsize=8)
    axes.set_axis_off()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gcnet"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(DOCS / "figures" / "architecture.svg")
