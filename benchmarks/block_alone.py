"""A GC block by itself, not folded, at inference on the CPU: ours, mmcv's ContextBlock, timm's GlobalContext.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/block_alone.py
    OMP_WAIT_POLICY=PASSIVE python benchmarks/block_alone.py --compile       # each block compiled too: minutes

The limit is memory: the map must be read twice (the context is known only after the last position) and written once,
one and a half times what a plain copy moves; the copy, into memory that exists, is timed in the same rounds. Weights
are the same in all three; equal outputs (without x) are checked first for every row. Float32, inference mode.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

import gcnet
from gcnet.surgery.timing import time_in_rounds
from measure import rounded, speed_up
from peers import awaken, difference, mmcv_block, timm_block
from rows import FORMATS, Row, as_table, milliseconds, ms_cell, options, start, take, time_over, times_cell

SIZES = ((1, 512, 100, 136), (1, 1024, 50, 68), (1, 2048, 25, 34), (8, 512, 28, 28), (8, 1024, 14, 14))
PEERS = ("mmcv", "timm")
TOLERANCE = 1e-5
GOAL, CELLS = 2.0, 7  # at least so many times faster in so many of the ten cells


def blocks(channels: int, memory_format: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    ours = awaken(gcnet.create_block("gc", channels)).eval()
    found = {"ours": ours, "mmcv": mmcv_block(ours), "timm": timm_block(ours)}  # type: ignore[arg-type]
    return {name: block.to(memory_format=FORMATS[memory_format]) for name, block in found.items()}


def check(models: Mapping[str, Callable[[torch.Tensor], torch.Tensor]], x: torch.Tensor) -> float:
    """Largest relative difference of what the blocks add to x."""
    contexts = {name: model(x) - x for name, model in models.items()}
    worst = max(difference(contexts[name], contexts["mmcv"]) for name in models)
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    return worst


def measure(shape: tuple[int, ...], memory_format: str, *, rounds: int, seconds: float, compiled: bool = False) -> Row:
    models: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {**blocks(shape[1], memory_format)}
    if compiled:
        torch._dynamo.reset()
        models |= {f"{name}, compiled": torch.compile(m, fullgraph=True, dynamic=False) for name, m in models.items()}
    x = torch.randn(shape).to(memory_format=FORMATS[memory_format])
    with torch.inference_mode():
        worst = check(models, x)
        functions = {name: partial(model, x) for name, model in models.items()}
        functions["copy"] = partial(torch.empty_like(x).copy_, x)
        taken = time_in_rounds(functions, rounds, seconds)
    return {
        "difference": worst,
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "ours_times_faster": {name: rounded(speed_up(taken, "ours", name)) for name in models if name != "ours"},
        "over_copy": {name: rounded(time_over(taken, name, "copy")) for name in models},
    }


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for name, ms in row["ms"].items():
            faster = times_cell(row["ours_times_faster"][name]) if name in row["ours_times_faster"] else ""
            over = row["over_copy"].get(name)
            limit = {key: over[key] / 1.5 for key in ("median", "low", "high")} if over else None
            cells = [times_cell(over), times_cell(limit)] if over and limit else ["", ""]
            lines.append(f"{row['case']} | {name} | {ms_cell(ms)} | {faster} | {cells[0]} | {cells[1]} | {ms['n']}")
    header = (
        "map | what | ms | ours is so many times faster | time over one copy | time over the limit, 1.5 copies | rounds"
    )
    notes = [
        "Medians with 95 % intervals; ratios are taken inside the rounds.",
        f"Largest relative difference of the contexts: {max(row['difference'] for row in rows):.0e}.",
    ]
    if len(rows) == len(SIZES) * len(FORMATS):
        notes += [verdict(rows, peer) for peer in PEERS]
    return as_table(header, lines) + "\n\n" + " ".join(notes)


def verdict(rows: list[Row], peer: str) -> str:
    """How the goal stands against one peer; a cell counts when the interval reaches it."""
    ratios = [row["ours_times_faster"][peer] for row in rows]
    twice, twice_by_median = (sum(ratio[key] >= GOAL for ratio in ratios) for key in ("high", "median"))
    slower, slower_by_median = (sum(ratio[key] < 1 for ratio in ratios) for key in ("high", "median"))
    least = min(ratio["median"] for ratio in ratios)
    return (
        f"Against {peer}, of {len(ratios)} cells: at least {GOAL:.0f} times faster in {twice} ({twice_by_median} by "
        f"the median alone; goal {CELLS}), slower in {slower} ({slower_by_median}; goal 0), least {least:.2f} times."
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--compile", action="store_true", help="add torch.compile of all three blocks")
    arguments = start(parser)
    effort = arguments.effort
    cases = {
        f"{'x'.join(map(str, shape))} {memory_format}": partial(
            measure,
            shape,
            memory_format,
            rounds=round(200 * effort),
            seconds=6 * effort,
            compiled=arguments.compile,
        )
        for shape in SIZES
        for memory_format in FORMATS
    }
    about = "A GC block (r = 16) alone at inference, not folded, float32, CPU"
    take("block_alone", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
