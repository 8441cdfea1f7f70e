"""`gcnet blocks`."""

from __future__ import annotations

WIDTHS = (256, 1024, 2048)
WIDE = 130  # from so many columns on the table also says in words what a block is


def blocks() -> None:
    """List the blocks: paper, complexity over P positions and C channels, dimensions, parameters by default."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from gcnet.blocks.catalogue import CATALOGUE, create_block

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("block", *(["what it is"] if console.width >= WIDE else []), "paper", "complexity", "dims"):
        table.add_column(column, no_wrap=True)
    for width in WIDTHS:
        table.add_column(f"C={width}", justify="right", no_wrap=True)
    for name, entry in CATALOGUE.items():
        with torch.device("meta"):
            sizes = [sum(p.numel() for p in create_block(name, width).parameters()) for width in WIDTHS]
        table.add_row(
            name,
            *([entry.title] if console.width >= WIDE else []),
            entry.paper,
            entry.complexity,
            ",".join(str(dim) for dim in entry.dims),
            *(f"{size:,}" for size in sizes),
        )
    console.print(table)
    console.print("\npaper: arXiv; dims: 1D, 2D, 3D maps; P: positions, C: channels; C=...: parameters")
