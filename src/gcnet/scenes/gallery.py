"""Test scenes with what each model marked."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from gcnet.analysis.comparison import Comparison
from gcnet.checkpoints import load_checkpoint
from gcnet.report.page import Gallery, Panel
from gcnet.scenes.draw import CELL, IGNORED
from gcnet.scenes.source import open_scenes

ZOOM = 6
ASKED, RIGHT, WRONG = "#ffffff", "#4aa8ff", "#ff9d42"  # on black pictures, told apart by the colour-blind too


def scene_gallery(comparison: Comparison, *, count: int) -> Gallery:
    """The first `count` test scenes, whichever they are, with the marks of every variant's first finished seed."""
    dataset = open_scenes(comparison.settings.data.path, ("test",)).datasets["test"]
    images, labels, *_ = (torch.stack(parts) for parts in zip(*(dataset[i] for i in range(count)), strict=True))
    first = {result.label: result for result in reversed(comparison.results)}
    marks = {
        row.label: _marks(first[row.label].folder / "model.safetensors", images)
        for row in comparison.rows
        if row.label in first
    }
    rows = [
        _panels(images[i, 0].numpy(), labels[i].numpy(), {label: mark[i] for label, mark in marks.items()})
        for i in range(count)
    ]
    caption = (
        f"The first {count} test scenes, models of the first seed. White frame: to be marked. Blue: rightly marked. "
        "Orange: wrongly marked; dashed: overlooked."
    )
    return Gallery(caption, rows)


@torch.inference_mode()
def _marks(weights: Path, images: torch.Tensor) -> np.ndarray:
    return load_checkpoint(weights).model(images)[0].argmax(1).numpy()


def _panels(image: np.ndarray, labels: np.ndarray, marks: Mapping[str, np.ndarray]) -> list[Panel]:
    counted = labels != IGNORED
    asked = _Drawing(image)
    for cell in np.argwhere(labels == 1):
        asked.frame(cell, ASKED)
    panels = [Panel("to be marked", "", asked.png())]
    for label, mark in marks.items():
        drawing = _Drawing(image)
        for cell in np.argwhere(counted & ((mark == 1) | (labels == 1))):
            equal, overlooked = (mark == labels)[tuple(cell)], mark[tuple(cell)] == 0
            drawing.frame(cell, RIGHT if equal else WRONG, dashed=overlooked)
        right = int((mark == labels)[counted].sum())
        panels.append(Panel(label, f"{right} of {int(counted.sum())} right", drawing.png()))
    return panels


class _Drawing:
    """The enlarged scene, with frames inside cells."""

    def __init__(self, image: np.ndarray) -> None:
        grey = Image.fromarray((255 * image).round().astype(np.uint8))
        self.image = grey.resize((ZOOM * grey.width, ZOOM * grey.height), Image.Resampling.NEAREST).convert("RGB")
        self.pen = ImageDraw.Draw(self.image)

    def frame(self, cell: np.ndarray, colour: str, *, dashed: bool = False) -> None:
        side, gap, width = ZOOM * CELL, ZOOM // 2, ZOOM - 2
        top, left = (side * int(number) + gap for number in cell)
        length = side - 2 * gap
        dash = 2 * width if dashed else length
        for start in range(0, length, 2 * dash):
            stop = min(start + dash, length) - 1
            for offset in (0, length - width):
                self.pen.rectangle((left + start, top + offset, left + stop, top + offset + width - 1), fill=colour)
                self.pen.rectangle((left + offset, top + start, left + offset + width - 1, top + stop), fill=colour)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, format="png", optimize=True)
        return buffer.getvalue()
