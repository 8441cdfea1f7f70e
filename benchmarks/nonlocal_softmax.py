"""The two softmax forms of the non-local operation: memory over P, and which exact route is faster on this CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/nonlocal_softmax.py

Memory: theta, phi and g of 32 channels (theta and phi of 64 in the Gaussian form), up to P = 65,536; with 512 channels
all queries up to P = 16,384, and at 65,536 keys 2,048 queries of the 65,536, since time is quadratic and two cores
would take minutes. The P x P matrix, in float32, is what it is compared with. Routes: PyTorch's fused kernel, which on
the CPU wants equal head sizes (zeros are padded), and our chunks of queries; `gcnet.ops` takes the chunks where the
sizes differ. Float32, batch 1. Equal outputs and gradients are checked first.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.ops import nonlocal_attend
from gcnet.ops.nonlocal_attention.query_chunks import SoftmaxInChunks
from gcnet.surgery.timing import time_in_rounds
from measure import peak_extra_megabytes, rounded, speed_up
from peers import difference
from rows import INTERVALS, Row, as_table, milliseconds, ms_cell, options, start, take, times_cell

POSITIONS = (256, 1024, 4096, 16384, 65536)
PASSES = ("forward", "forward and backward")
TOLERANCE = 1e-5


def tensors(P: int, D: int, V: int, *, queries: int | None = None, grad: bool = False) -> list[Tensor]:
    shapes = ((1, queries or P, D), (1, P, D), (1, P, V))
    scales = (D**-0.25, D**-0.25, 1.0)  # logits of variance 1
    return [(torch.randn(shape) * scale).requires_grad_(grad) for shape, scale in zip(shapes, scales, strict=True)]


def fused(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    V = g.shape[2]
    g = F.pad(g, (0, theta.shape[2] - V))
    return F.scaled_dot_product_attention(theta[:, None], phi[:, None], g[:, None], scale=1.0)[:, 0, :, :V]


def chunks(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    return SoftmaxInChunks.apply(theta, phi, g, 1.0)[0]


def attend(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    return nonlocal_attend(theta, phi, g, pairwise="gaussian")  # the same operation as embedded_gaussian


def run(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The output and, where the inputs ask for them, their gradients."""
    out = function(*inputs)
    return (out, *torch.autograd.grad(out, inputs, torch.ones_like(out))) if inputs[0].requires_grad else (out,)


def routes(P: int, D: int, V: int, what: str, *, rounds: int, seconds: float) -> Row:
    inputs = tensors(P, D, V, grad=what != "forward")
    runs = {"chunks": partial(run, chunks, inputs), "fused": partial(run, fused, inputs)}
    worst = max(difference(a, b) for a, b in zip(*(call() for call in runs.values()), strict=True))
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    taken = time_in_rounds(runs, rounds, seconds)
    return {
        "difference": worst,
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "chunks_times_faster": rounded(speed_up(taken, "chunks", "fused")),
        "peak_extra_MB": {name: round(peak_extra_megabytes(call), 1) for name, call in runs.items()},
    }


def memory(D: int, V: int, what: str, *, positions: tuple[int, ...], some: int | None = None) -> Row:
    """The peak over P; `some`: so many queries at the last P."""
    peaks = {}
    for P in positions:
        inputs = tensors(P, D, V, queries=some if positions[-1] == P else None, grad=what != "forward")
        peaks[P] = round(peak_extra_megabytes(partial(run, attend, inputs)), 1)
    return {"peak_extra_MB_over_P": peaks, "queries_at_the_last_P": some}


def table(rows: list[Row]) -> str:
    parts = []
    measured = [row for row in rows if "peak_extra_MB_over_P" in row]
    if measured:
        lines = []
        for row in measured:
            peaks = {int(P): value for P, value in row["peak_extra_MB_over_P"].items()}
            some = row["queries_at_the_last_P"]
            cells = [str(peaks[P]) if P in peaks else "" for P in POSITIONS]
            if some:
                cells[POSITIONS.index(max(peaks))] += f" ({some} queries)"
            lines.append(" | ".join([row["case"], *cells]))
        lines.append(" | ".join(["(the P x P matrix)", *(f"{P * P * 4 / 2**20:.1f}" for P in POSITIONS)]))
        parts.append(as_table("peak extra memory, MB | " + " | ".join(f"P = {P}" for P in POSITIONS), lines))
    timed = [row for row in rows if "chunks_times_faster" in row]
    if timed:
        lines = [
            " | ".join(
                [row["case"], ms_cell(row["ms"]["chunks"]), ms_cell(row["ms"]["fused"])]
                + [times_cell(row["chunks_times_faster"])]
                + [str(row["peak_extra_MB"][name]) for name in ("chunks", "fused")]
                + [str(row["ms"]["fused"]["n"])]
            )
            for row in timed
        ]
        header = "routes | chunks, ms | fused, ms | chunks are so many times faster | chunks, MB | fused, MB | rounds"
        parts.append(as_table(header, lines))
        parts.append(f"{INTERVALS} Largest relative difference: {max(row['difference'] for row in timed):.0e}.")
    return "\n\n".join(parts)


def cases(effort: float) -> dict[str, Callable[[], Row]]:
    """Name -> what measures that row."""
    upto = POSITIONS[:-1]
    found: dict[str, Callable[[], Row]] = {
        "embedded Gaussian, 32 channels, forward": partial(memory, 32, 32, "forward", positions=POSITIONS),
        "Gaussian, 64 and 32 channels, forward": partial(memory, 64, 32, "forward", positions=POSITIONS),
        "embedded Gaussian, 32 channels, forward and backward": partial(memory, 32, 32, PASSES[1], positions=upto),
        "Gaussian, 64 and 32 channels, forward and backward": partial(memory, 64, 32, PASSES[1], positions=upto),
        "embedded Gaussian, 512 channels, forward": partial(
            memory, 512, 512, "forward", positions=POSITIONS, some=2048
        ),
    }
    for D, V in ((1024, 512), (512, 512)):
        for what in PASSES:
            seconds = effort * (6 if what == "forward" else 12)
            name = f"D = {D}, V = {V}, P = 4200, {what}"
            found[name] = partial(routes, 4200, D, V, what, rounds=round(10 * effort), seconds=seconds)
    return found


def main() -> None:
    arguments = start(options(__doc__))
    about = "Softmax non-local without the P x P matrix: memory over P, and routes on the CPU; batch 1, float32"
    take("nonlocal_softmax", about, cases(arguments.effort), table, only=arguments.only)


if __name__ == "__main__":
    main()
