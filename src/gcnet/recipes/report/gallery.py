"""Test scenes with what each model marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from gcnet.checkpoints import load_checkpoint
from gcnet.data.scenes import CELL, IGNORED
from gcnet.recipes.comparison import Comparison
from gcnet.recipes.report.page import Figure
from gcnet.recipes.report.plots import Theme, draw
from gcnet.recipes.sources import open_scenes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLUMNS = 3


def scene_figures(comparison: Comparison, *, count: int) -> list[Figure]:
    """The first `count` test scenes, whichever they are, with the marks of every variant's first finished seed."""
    dataset = open_scenes(comparison.settings.data, ("test",)).datasets["test"]
    images, labels, *_ = (torch.stack(parts) for parts in zip(*(dataset[i] for i in range(count)), strict=True))
    marks = {}
    for row in comparison.rows:
        result = next((result for result in comparison.results if result.label == row.label), None)
        if result is not None:
            marks[row.label] = _marks(result.folder / "model.safetensors", images)
    figures = []
    for index in range(count):
        own = {label: mark[index] for label, mark in marks.items()}
        figures.append(_scene(images[index, 0].numpy(), labels[index].numpy(), own, index))
    return figures


@torch.inference_mode()
def _marks(weights: Path, images: torch.Tensor) -> np.ndarray:
    return load_checkpoint(weights).model(images)[0].argmax(1).numpy()


def _scene(image: np.ndarray, labels: np.ndarray, marks: Mapping[str, np.ndarray], index: int) -> Figure:
    counted = labels != IGNORED
    right = {label: int((mark == labels)[counted].sum()) for label, mark in marks.items()}
    total = int(counted.sum())

    def paint(theme: Theme) -> Canvas:
        from matplotlib.figure import Figure as Canvas

        lines = -(-(1 + len(marks)) // COLUMNS)
        figure = Canvas(figsize=(6.4, 2.35 * lines), facecolor=theme.page, layout="constrained")
        axes = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
        for empty in axes:
            empty.axis("off")
        _panel(axes[0], image, "to be marked", theme)
        for cell in np.argwhere(labels == 1):
            _frame(axes[0], cell, theme.truth, "-")
        for place, (label, mark) in zip(axes[1:], marks.items(), strict=False):
            _panel(place, image, f"{label}: {right[label]} of {total} right", theme)
            for cell in np.argwhere(counted & (mark == 1)):
                _frame(place, cell, theme.good if labels[tuple(cell)] == 1 else theme.bad, "-")
            for cell in np.argwhere(counted & (mark == 0) & (labels == 1)):
                _frame(place, cell, theme.bad, (0, (2, 1.5)))
        return figure

    said = "; ".join(f"{label} {count} of {total} cells right" for label, count in right.items())
    key = "Blue: rightly marked; orange: wrongly marked; dashed: overlooked"
    caption = f"Test scene {index + 1}. {key}. Models of the first seed."
    return Figure(caption, f"Scene of 4 by 4 items with marks: {said}", *draw(paint))


def _panel(axes: Axes, image: np.ndarray, title: str, theme: Theme) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, color=theme.text, fontsize=12, parse_math=False)


def _frame(axes: Axes, cell: np.ndarray, colour: str, style: str | tuple[int, tuple[float, float]]) -> None:
    from matplotlib.patches import Rectangle

    row, column = (int(number) for number in cell)
    corner = (column * CELL + 0.6, row * CELL + 0.6)
    size = CELL - 2.2
    axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2.2, linestyle=style))
