"""What rich shows on a terminal, the same as text, and the same in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from gcnet.files.atomic import write_text

T = TypeVar("T")


def as_text(figures: Any, width: int) -> str:
    """What `__rich__` of some figures shows, without colours, in lines of at most so many characters."""
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(figures)
    return capture.get()


def show(figures: Any, file: Path | None, *, width: int) -> None:
    """Print what has `__rich__`, at least so wide where no terminal says how wide; its `to_dict` goes into the file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, width)
    console.print(figures)
    if file is not None:
        write_text(file, json.dumps(figures.to_dict(), indent=2) + "\n")
        console.print(f"written: {file}", markup=False, soft_wrap=True)


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), wrap: bool = False
) -> Table:
    """A table without lines; cells are text whatever they hold, since a module's name is no markup.

    The columns numbered in `left` stand at the left, the others at the right; `wrap` tells whether all columns but the
    first may be broken where the terminal is narrow.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", no_wrap=index == 0 or not wrap)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def class_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """A row for each class with its figures; where there is nothing to measure a dash."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in rows:
        cells = (row.get(name) for name in columns)
        table.add_row(*(Text("-" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c)) for c in cells))
    return table


def tracked(items: Iterable[T], what: str, progress: bool) -> Iterable[T]:
    """The items with a progress bar, if one is wanted and the output is a terminal."""
    return track(items, what, transient=True) if progress and sys.stdout.isatty() else items
