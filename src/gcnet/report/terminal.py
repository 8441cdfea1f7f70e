"""What rich shows on a terminal, as text."""

from typing import Any

from rich.console import Console


def as_text(figures: Any, width: int) -> str:
    """What `__rich__` of some figures shows, without colours, in lines of at most so many characters."""
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(figures)
    return capture.get()
