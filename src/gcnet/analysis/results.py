"""What `analyze` found: figures, verdicts, and the images kept for looking at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group

from gcnet.analysis.grids import KeptImage
from gcnet.analysis.rows import Row
from gcnet.analysis.verdict import Verdict
from gcnet.report.analysis_table import tables
from gcnet.report.terminal import as_text


@dataclass(frozen=True)
class Analysis:
    """How much each block's attention depends on its query; see `gcnet.analyze`.

    Attributes:
        model: The class of the model.
        images: How many were looked at, in all processes together.
        table: A row for each block, unrounded: `block` (its name in the model, "" for the model itself), `kind` (its
            class), `form` ("softmax", "dot_product", "concatenation"), `images`, `heads`, `positions`, `queries` (1 for
            a block with one map for all), `keys`, and the figures of `gcnet.analyze` with `_low` and `_high`, the ends
            of the 95 % interval. What a form does not have is NaN.
        heads: A row for each head: `block`, `head`, and the figures of its maps.
        scales: A row for each factor on the logits: `block`, `factor`, and `att_cos`, `att_jsd`, `entropy`. For factors
            other than 1 they are unbiased estimates from 32 queries an image.
        per_class: A row for each block and class, like `table`; by the labels given, else by the class that the model
            predicts; empty where it predicts none.
        verdicts: Name of a block -> "query-independent: GC would do", "query-dependent: keep NL" or "undecided", with
            the numbers behind it in `.numbers`; see `gcnet.analysis.verdict`.
        skipped: Name -> why a module that looks like attention could not be read.
        unreadable: File -> why it could not be read.
        kept: The first images with their maps on grids of at most 16x16, as many as `keep` asked for.
    """

    model: str
    images: int
    table: list[Row]
    heads: list[Row]
    scales: list[Row]
    per_class: list[Row]
    verdicts: dict[str, Verdict]
    skipped: dict[str, str]
    unreadable: dict[str, str]
    kept: list[KeptImage] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All figures as numbers, texts, lists and dictionaries for JSON, in which NaN and infinity are None."""
        names = ("model", "images", "table", "heads", "scales", "per_class", "skipped", "unreadable")
        verdicts = {name: {"verdict": str(found), **found.numbers} for name, found in self.verdicts.items()}
        return _plain({name: getattr(self, name) for name in names} | {"verdicts": verdicts})

    def save(self, path: str | Path) -> None:
        """Write what was found as a file that shows it.

        `.html`: the report, one file that needs no network and no server: pictures, the map of every position in all
        blocks and heads, distances, verdicts. Needs jinja2. `.png` and `.pdf`: `figure` with its defaults.

        Args:
            path: The file; its suffix says what becomes of it.

        Raises:
            ValueError: another suffix; for a figure, no image was kept.
            ModuleNotFoundError: the packages of the extra `report` are absent.
        """
        from gcnet.report.analysis_page import save

        save(self, Path(path))

    def figure(
        self,
        path: str | Path,
        *,
        images: Sequence[int] = (0,),
        queries: Sequence[tuple[float, float]] = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75)),
        blocks: Sequence[str] | None = None,
    ) -> None:
        """Write a figure for a paper: a row for each image and query, a column for each block. Needs matplotlib.

        Over the grey picture lies the mean map over heads (of a grid's cell the mean weight of its keys); the colours
        of a column have one scale, so its rows can be compared. The same analysis always gives the same file.

        Args:
            path: A file that ends in .png or .pdf.
            images: Which of `kept`, counted from 0.
            queries: Places in the picture, (from the top, from the left), each between 0 and 1.
            blocks: Names of blocks, in the order wanted; None: all whose positions are a 2D map.

        Raises:
            ValueError: another suffix, an image that was not kept, a place outside, a block that has no 2D map.
            ModuleNotFoundError: matplotlib is absent.
        """
        from gcnet.report.figure import save_figure

        save_figure(self, Path(path), images=images, queries=queries, blocks=blocks)

    def __rich__(self) -> Group:
        return tables(self)

    def __str__(self) -> str:
        return as_text(self, 180)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
