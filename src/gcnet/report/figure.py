"""Figures for papers: a row for each image and query, a column for each block, the map over the grey picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcnet.analysis.grids import Grid
from gcnet.analysis.measure import Findings
from gcnet.errors import GcnetError, some
from gcnet.files.atomic import write_atomically
from gcnet.report.distances import name_of
from gcnet.report.page import check_target

_OPACITY = 0.7  # of the map over the picture
_COLUMN, _GAP, _TITLE, _BAR = 1.3, 0.06, 0.4, 0.35  # inches: width of a column, between, above, and below the maps


def save_figure(
    analysis: Findings,
    path: Path,
    *,
    images: Sequence[int],
    queries: Sequence[tuple[float, float]],
    blocks: Sequence[str] | None,
) -> None:
    """Draw and write it; see `Analysis.figure`."""
    suffix = check_target(path)
    if suffix == ".html":
        raise GcnetError(f"path={str(path)!r}: a figure ends in .png or .pdf; the report is written by save")
    _check(analysis, images, queries)
    names = _blocks(analysis, images, blocks)
    drawn = _draw(analysis, images, queries, names)
    metadata: Any = {"CreationDate": None} if suffix == ".pdf" else None  # the same figure is the same file
    write_atomically(path, lambda file: drawn.savefig(file, format=suffix[1:], dpi=200, metadata=metadata))


def _check(analysis: Findings, images: Sequence[int], queries: Sequence[tuple[float, float]]) -> None:
    count = len(analysis.kept)
    wrong = [index for index in images if type(index) is not int or not 0 <= index < count]
    if wrong or not images:
        raise GcnetError(
            f"images={list(images)!r}: {count} images were kept, numbered from 0; analyze(..., keep=12) keeps more"
        )
    outside = [query for query in queries if len(query) != 2 or not all(0 <= place <= 1 for place in query)]
    if outside or not queries:
        raise GcnetError(f"queries={list(queries)!r}: give places (from the top, from the left), each between 0 and 1")


def _blocks(analysis: Findings, images: Sequence[int], blocks: Sequence[str] | None) -> list[str]:
    shown = [
        row["block"] for row in analysis.table if all(row["block"] in analysis.kept[index].grids for index in images)
    ]
    unknown = [name for name in blocks or () if name not in shown]
    if unknown or not shown or (blocks is not None and not blocks):
        raise GcnetError(
            f"blocks={blocks if blocks is None else list(blocks)!r}: those with 2D maps of these images are "
            f"{some(map(repr, shown), 12) or 'none'}"
        )
    return list(blocks or shown)


def _draw(analysis: Findings, images: Sequence[int], queries: Sequence[tuple[float, float]], names: list[str]) -> Any:
    """Laid out in inches: columns of equal width, rows as high as their picture is at that width."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rows = [(analysis.kept[index], query) for index in images for query in queries]
    heights = [_COLUMN * image.picture.shape[1] / image.picture.shape[2] for image, _ in rows]
    width = (len(names) + 1) * (_COLUMN + _GAP) + _GAP
    height = _TITLE + sum(heights) + _GAP * len(rows) + _BAR
    figure = Figure(figsize=(width, height), facecolor="white")

    def axes(column: int, top: float, high: float) -> Any:
        left = _GAP + column * (_COLUMN + _GAP)
        return figure.add_axes((left / width, 1 - (top + high) / height, _COLUMN / width, high / height))

    tops = [_TITLE + sum(heights[:row]) + _GAP * row for row in range(len(rows))]
    for (image, query), top, high in zip(rows, tops, heights, strict=True):
        cell = axes(0, top, high)
        _picture(cell, image.picture.permute(1, 2, 0).numpy())
        cell.plot(query[1] * image.picture.shape[2], query[0] * image.picture.shape[1], **_MARK)
    for column, name in enumerate(names, start=1):
        maps = [_map(image.grids[name], query) for image, query in rows]
        norm = Normalize(min(0.0, *(float(m.min()) for m in maps)), max(float(m.max()) for m in maps))
        for (image, query), weights, top, high in zip(rows, maps, tops, heights, strict=True):
            cell = axes(column, top, high)
            pixels = image.picture.shape[1:]
            _picture(cell, image.picture.float().mean(dim=0).numpy(), cmap="gray", vmin=0, vmax=255)
            extent = (0, pixels[1], pixels[0], 0)
            cell.imshow(weights, cmap="viridis", norm=norm, alpha=_OPACITY, extent=extent, interpolation="nearest")
            if math.prod(image.grids[name].queries) > 1:
                y, x = _nearest(image.grids[name], query)[1]
                cell.plot(x * pixels[1], y * pixels[0], **_MARK)
            if top == tops[0]:
                cell.set_title(_broken(name_of(name)), fontsize=7, pad=3, parse_math=False)
        bar = axes(column, tops[-1] + heights[-1] + 0.08, 0.08)
        figure.colorbar(ScalarMappable(norm, "viridis"), cax=bar, orientation="horizontal").outline.set_visible(False)
        ends = (float(norm.vmin or 0), float(norm.vmax or 0))
        bar.set_xticks(ends, labels=[f"{end:.2g}" for end in ends], fontsize=6)
        bar.tick_params(length=0, pad=2)
        for label, side in zip(bar.get_xticklabels(), ("left", "right"), strict=True):
            label.set_horizontalalignment(side)
    return figure


_MARK: dict[str, Any] = {
    "marker": "s",
    "color": "none",
    "markeredgecolor": "red",
    "markersize": 4.5,
    "markeredgewidth": 1,
}


def _picture(cell: Any, pixels: Any, **options: Any) -> None:
    height, width = pixels.shape[:2]
    cell.imshow(pixels, extent=(0, width, height, 0), **options)
    cell.set_axis_off()


def _nearest(grid: Grid, query: tuple[float, float]) -> tuple[int, tuple[float, float]]:
    """The grid's query that is nearest to a place in the picture: its number, and where it is."""
    rows, columns = grid.places()
    row, column = (int((places - place).abs().argmin()) for places, place in zip((rows, columns), query, strict=True))
    return row * grid.queries[1] + column, (float(rows[row]), float(columns[column]))


def _map(grid: Grid, query: tuple[float, float]) -> Any:
    """Mean over heads; of the keys in a cell the mean weight, since cells may hold different numbers of them."""
    rows, columns = grid.held()
    sums = grid.maps()[:, _nearest(grid, query)[0]].mean(dim=0).view(grid.keys)
    return (sums / (rows[:, None] * columns)).numpy()


def _broken(name: str) -> str:
    """A long name in two lines."""
    head, dot, tail = name.rpartition(".")
    return f"{head}{dot}\n{tail}" if len(name) > 14 and dot else name
