"""The non-local block, C = 1024 and C' = 512 at 4200 positions: ours, mmcv-lite's NonLocal2d, timm's NonLocalAttn.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/nonlocal_peers.py                   # NCHW
    OMP_WAIT_POLICY=PASSIVE python benchmarks/nonlocal_peers.py --only '*'        # both memory formats: twice as long

Ours is what `gcnet.accelerate` makes of theirs, with the same weights; the outputs without x and, where a backward pass
is timed, the gradients of x are compared first. Whole blocks on the CPU, float32: the four 1x1 layers are part of both
sides. mmcv's concatenation forms every pair of positions, which does not fit at 4200; it is compared at 256, with ours
alone at 4200 beside it. It has no backward pass: it divides the output of its ReLU in place, which autograd refuses.
timm's block is the embedded Gaussian with a factor and a batch norm (in evaluation mode here).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import timm.layers
import torch
from mmcv.cnn import NonLocal2d
from torch import Tensor, nn

import gcnet
from gcnet.surgery.timing import time_in_rounds
from measure import peak_extra_megabytes, rounded, speed_up
from peers import difference
from rows import FORMATS, INTERVALS, Row, as_table, milliseconds, ms_cell, options, start, take, times_cell

CHANNELS, REDUCTION = 1024, 2
MAP, SMALL_MAP = (50, 84), (16, 16)
PASSES = ("forward", "forward and backward")
PEERS = {
    "gaussian": "mmcv",
    "embedded_gaussian": "mmcv",
    "dot_product": "mmcv",
    "concatenation": "mmcv",
    "embedded_gaussian with norm": "timm",
}
TOLERANCE = 1e-5


def build(form: str, channels: int) -> dict[str, nn.Module]:
    """The peer's block with a last layer that is not zero, and ours with its weights."""
    torch.manual_seed(0)
    if PEERS[form] == "timm":
        theirs: nn.Module = timm.layers.NonLocalAttn(channels, rd_channels=channels // REDUCTION)
        nn.init.uniform_(theirs.norm.weight, 0.5, 1.5)  # type: ignore[union-attr, arg-type]
    else:
        theirs = NonLocal2d(channels, reduction=REDUCTION, mode=form, zeros_init=False)
        # mmcv's own 0.01 adds so little that the rounding errors of x hide it
        nn.init.normal_(theirs.conv_out.conv.weight, std=0.3)
    return {"ours": gcnet.accelerate(theirs).eval(), PEERS[form]: theirs.eval()}


def run(block: nn.Module, x: Tensor, cotangent: Tensor | None) -> tuple[Tensor, ...]:
    """The output and, with a cotangent, the gradients of x and of all parameters."""
    if cotangent is None:
        with torch.no_grad():
            return (block(x),)
    inputs = [x, *(p for p in block.parameters() if p.requires_grad)]
    out = block(x)
    return out, *torch.autograd.grad(out, inputs, cotangent)


def check(runs: dict[str, Callable[[], tuple[Tensor, ...]]], x: Tensor) -> float:
    """Largest relative difference of output - x and, if there are gradients, of that of x without the shortcut's."""
    ours, theirs = (call() for call in runs.values())
    worst = difference(ours[0] - x, theirs[0] - x)
    if len(ours) > 1:
        worst = max(worst, difference(ours[1], theirs[1]))
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    return worst


def measure(
    form: str,
    what: str,
    memory_format: str,
    size: tuple[int, int],
    *,
    rounds: int,
    seconds: float,
    channels: int = CHANNELS,
    missing: str | None = None,
) -> Row:
    """One row; `missing`: why only ours is run."""
    blocks = {
        name: block.to(memory_format=FORMATS[memory_format])  # type: ignore[call-overload]
        for name, block in build(form, channels).items()
        if name == "ours" or not missing
    }
    # The Gaussian form of normal numbers of variance 1 would look at nothing but the position itself.
    x = torch.randn(1, channels, *size) * (0.1 if form == "gaussian" else 1.0)
    x = x.to(memory_format=FORMATS[memory_format])
    cotangent = None
    if what != "forward":
        x.requires_grad_()
        cotangent = torch.randn_like(x)
    runs = {name: partial(run, block, x, cotangent) for name, block in blocks.items()}
    worst = None if missing else check(runs, x.detach())
    taken = time_in_rounds(runs, rounds, seconds)
    return {
        "difference": worst,
        "positions": math.prod(size),
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "times_faster": None if missing else rounded(speed_up(taken, "ours", PEERS[form])),
        "peak_extra_MB": {name: round(peak_extra_megabytes(call), 1) for name, call in runs.items()},
        "missing": missing,
    }


def why_missing(form: str, what: str, positions: int) -> str | None:
    """Why mmcv's concatenation cannot be run: its pairs are (1, 2 C', P, P) in float32; None where it can."""
    if form != "concatenation" or (positions <= math.prod(SMALL_MAP) and what == "forward"):
        return None
    if positions <= math.prod(SMALL_MAP):
        return "mmcv: its backward pass raises an error (a division in place)"
    return f"mmcv: does not fit, its pairs alone take {2 * (CHANNELS // REDUCTION) * positions**2 * 4 / 1e9:.0f} GB"


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        ms, memory = row["ms"], row["peak_extra_MB"]
        peer = next((name for name in ms if name != "ours"), None)
        if peer is None:
            theirs = [row["missing"], "", ""]
        else:
            theirs = [f"{peer}: {ms_cell(ms[peer])}", times_cell(row["times_faster"]), str(memory[peer])]
        cells = [row["case"], ms_cell(ms["ours"]), *theirs[:2], str(memory["ours"]), theirs[2], str(ms["ours"]["n"])]
        lines.append(" | ".join(cells))
    header = "block | ours, ms | theirs, ms | ours is so many times faster | ours, MB | theirs, MB | rounds"
    differences = [row["difference"] for row in rows if row["difference"] is not None]
    notes = [
        INTERVALS,
        "MB: highest resident memory during one call above that before it, outputs and gradients included.",
    ]
    if differences:
        notes.append(
            f"Largest relative difference of what the blocks add, and of the gradients of x: {max(differences):.0e}."
        )
    return as_table(header, lines) + "\n\n" + "\n".join(notes)


def cases(effort: float) -> dict[str, Callable[[], Row]]:
    """Name -> what measures that row."""
    found: dict[str, Callable[[], Row]] = {}
    settings: dict[str, Any] = {"rounds": round(12 * effort)}
    for memory_format in FORMATS:
        for form in PEERS:
            sizes = (MAP, SMALL_MAP) if form == "concatenation" else (MAP,)
            for size in sizes:
                for what in PASSES:
                    name = f"{form}, {size[0]}x{size[1]}, {what}, {memory_format}"
                    seconds = effort * (8 if what == "forward" else 16)
                    settings["missing"] = why_missing(form, what, math.prod(size))
                    found[name] = partial(measure, form, what, memory_format, size, seconds=seconds, **settings)
    return found


def main() -> None:
    arguments = start(options(__doc__, only="*NCHW"))
    about = f"Non-local blocks of C = {CHANNELS}, C' = {CHANNELS // REDUCTION}, one image, float32, CPU"
    take("nonlocal_peers", about, cases(arguments.effort), table, only=arguments.only)


if __name__ == "__main__":
    main()
