"""`gcnet blocks`."""

from __future__ import annotations

WIDTHS = (256, 1024, 2048)


def blocks() -> None:
    """List the blocks: paper, complexity over P positions and C channels, dimensions, parameters by default."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from gcnet.blocks.catalogue import CATALOGUE, create_block

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("block", "what it is", "paper", "complexity", "dims"):
        table.add_column(column, no_wrap=column in ("block", "paper"))
    for width in WIDTHS:
        table.add_column(f"C={width}", justify="right", no_wrap=True)
    for name, entry in CATALOGUE.items():
        with torch.device("meta"):
            sizes = [sum(p.numel() for p in create_block(name, width).parameters()) for width in WIDTHS]
        dims = ", ".join(f"{dim}D" for dim in entry.dims)
        table.add_row(
            name, entry.title, f"arXiv:{entry.paper}", entry.complexity, dims, *(f"{size:,}" for size in sizes)
        )
    Console(highlight=False, markup=False).print(table)
