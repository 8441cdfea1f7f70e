"""Figures on the terminal, and in a file on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console


def show(figures: Any, file: Path | None, *, width: int) -> None:
    """Print what has `__rich__`, at least so wide where no terminal says how wide; its `to_dict` goes into the file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, width)
    console.print(figures)
    if file is not None:
        from gcnet.files.atomic import write_text

        write_text(file, json.dumps(figures.to_dict(), indent=2) + "\n")
        typer.echo(f"written: {file}")
