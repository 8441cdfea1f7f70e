"""Does the context from the narrow map pay in training with batch statistics? One unit's end, forward and backward.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/batch_statistics.py

1x1 convolution, batch norm with the statistics of the batch, GC block. "ordinary" is what `gcnet.insert` gives: the
block reads the wide map. "narrow" is exact too: the mean of the wide map is `W mean(h)`, its variance the diagonal of
`W Cov(h) W^T`, so context and logits follow from the narrow map h, and their gradients reach the statistics through
Cov(h), one more product of K x K per position in forward and two in backward. "none" is convolution and norm alone.
docs/decisions/0008 draws the conclusion. Random weights, float32, eager, outputs and gradients compared in float64.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gcnet
from gcnet.surgery.timing import time_in_rounds
from measure import rounded
from peers import difference
from rows import (
    FORMATS,
    INTERVALS,
    Row,
    as_table,
    milliseconds,
    ms_cell,
    options,
    percent_cell,
    start,
    take,
    time_over,
)

SHAPES = {"c3": (8, 128, 28, 28), "c4": (8, 256, 14, 14), "c5": (8, 512, 7, 7)}  # h of a ResNet-50 at 8x3x224x224
TOLERANCE = 1e-9


class Ordinary(nn.Module):
    """Convolution, norm, block."""

    def __init__(self, K: int, block: bool = True) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(K, 4 * K, 1, bias=False), nn.BatchNorm2d(4 * K)
        self.block = gcnet.create_block("gc", 4 * K) if block else None
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.05)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, h: Tensor) -> Tensor:
        y = self.norm(self.conv(h))
        return y if self.block is None else self.block(y)


class Narrow(Ordinary):
    """The same function; context, mean and variance for it from the narrow map."""

    def forward(self, h: Tensor) -> Tensor:
        assert self.block is not None
        out = self.norm(self.conv(h))
        W_CK = self.conv.weight.flatten(1)
        h_NK = h.movedim(1, -1).reshape(-1, h.shape[1])
        mean_K = h_NK.mean(0)
        covariance_KK = h_NK.t() @ h_NK / len(h_NK) - mean_K[:, None] * mean_K
        variance_C = ((W_CK @ covariance_KK) * W_CK).sum(1)
        gain_C = self.norm.weight * torch.rsqrt(variance_C + self.norm.eps)
        V_CK = W_CK * gain_C[:, None]
        pooled_BK = gcnet.ops.attention_pool(h, self.block.key.weight[0] @ V_CK, self.block.key.bias)
        context_BC = F.linear(pooled_BK - mean_K, V_CK, self.norm.bias)
        return out + self.block.add(context_BC)[:, :, None, None]


def step(module: nn.Module, h: Tensor) -> Tensor:
    module.zero_grad(set_to_none=True)
    h.grad = None
    out = module(h)
    (out * out.detach()).sum().backward()
    return out.detach()


def check(modules: dict[str, nn.Module], h: Tensor) -> float:
    """Largest relative difference of outputs and gradients, narrow to ordinary."""
    found = {}
    for name in ("ordinary", "narrow"):
        x = h.detach().clone().requires_grad_()
        out = step(modules[name], x)
        assert x.grad is not None
        gradients = [p.grad for n, p in modules[name].named_parameters() if not n.endswith("key.bias")]
        found[name] = [out, x.grad, *[g for g in gradients if g is not None]]
    worst = max(map(difference, found["narrow"], found["ordinary"]))
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    return worst


def measure(shape: tuple[int, ...], memory_format: str, *, rounds: int, seconds: float) -> Row:
    torch.manual_seed(0)
    ordinary = Ordinary(shape[1])
    narrow = copy.deepcopy(ordinary)
    narrow.__class__ = Narrow
    none = copy.deepcopy(ordinary)
    none.block = None
    modules = {"none": none, "ordinary": ordinary, "narrow": narrow}
    small = torch.randn(2, shape[1], 5, 4, dtype=torch.float64)
    worst = check({name: module.double() for name, module in modules.items()}, small)
    h = torch.randn(shape).relu().to(memory_format=FORMATS[memory_format]).requires_grad_()
    for module in modules.values():
        module.float().to(memory_format=FORMATS[memory_format])
    taken = time_in_rounds({name: partial(step, module, h) for name, module in modules.items()}, rounds, seconds)
    return {
        "shape": list(shape),
        "format": memory_format,
        "difference": worst,
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "over": {name: rounded(time_over(taken, name, "none")) for name in ("ordinary", "narrow")},
        "narrow_over_ordinary": rounded(time_over(taken, "narrow", "ordinary")),
    }


def table(rows: list[Row]) -> str:
    lines = [
        f"{row['case']} | {'x'.join(map(str, row['shape']))} | {ms_cell(row['ms']['none'])} | "
        f"{percent_cell(row['over']['ordinary'])} | {percent_cell(row['over']['narrow'])} | "
        f"{percent_cell(row['narrow_over_ordinary'])} | {row['ms']['none']['n']}"
        for row in rows
    ]
    header = "row | h | none, ms | ordinary: added % | narrow: added % | narrow over ordinary, % | rounds"
    return f"{as_table(header, lines)}\n\n{INTERVALS}"


def cases(effort: float) -> dict[str, Callable[[], Row]]:
    return {
        f"{stage}, {memory_format}": partial(
            measure, shape, memory_format, rounds=round(60 * effort), seconds=8 * effort
        )
        for stage, shape in SHAPES.items()
        for memory_format in FORMATS
    }


def main() -> None:
    arguments = start(options(__doc__))
    about = "Batch statistics: context from the wide map against context from the narrow map, forward and backward"
    take("batch_statistics", about, cases(arguments.effort), table, only=arguments.only)


if __name__ == "__main__":
    main()
