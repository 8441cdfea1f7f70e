"""The context tax: how much slower a network becomes by GC or SE blocks in c3 to c5, inference on the CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/context_tax.py                          # ResNet-50
    OMP_WAIT_POLICY=PASSIVE python benchmarks/context_tax.py --only 'resn*101*'       # ResNet-101, ResNeXt-101: slow

Two plain networks are the bases: `gcnet.fold` of the plain model, and one whose norms PyTorch's own function merged
(torch.nn.utils.fusion by hand), so that what else our fold gains cannot hide the tax. Ours is `gcnet.fold` of the
`gcnet.insert`-ed model; mmcv's ContextBlock and timm's GlobalContext and SEModule, with the same weights, sit in the
model of the second kind. mmcv has no SE without a LayerNorm. Equal outputs are checked first, for every row.
Random weights, float32, eager, inference mode; all networks of a row go in step, unit after unit, in one process.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import nn
from torchvision.models import resnet

import gcnet
from lockstep import inference_in_step
from peers import awaken, difference, fold_batch_norms, with_ours, with_peers
from rows import (
    FORMATS,
    INTERVALS,
    Row,
    options,
    start,
    take,
    tax_table,
    times_and_taxes,
)

BASES = ("none: gcnet.fold", "none: norms merged by PyTorch")
ARCHITECTURES: dict[str, Callable[[], resnet.ResNet]] = {
    "resnet50": partial(resnet.ResNet, resnet.Bottleneck, [3, 4, 6, 3]),
    "resnet101": partial(resnet.ResNet, resnet.Bottleneck, [3, 4, 23, 3]),
    "resnext101_32x4d": partial(resnet.ResNet, resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4),
}
# Seconds of timing, and the highest tax that is the goal.
INPUTS: dict[tuple[int, ...], tuple[float, float]] = {
    (1, 3, 224, 224): (8, 0.02),
    (8, 3, 224, 224): (18, 0.02),
    (1, 3, 800, 1088): (40, 0.01),
}
TOLERANCE = 1e-4


def networks(build: Callable[[], resnet.ResNet], memory_format: str) -> dict[str, nn.Module]:
    """Everything that takes turns, in eval mode."""
    torch.manual_seed(0)
    plain = awaken(build()).eval().to(memory_format=FORMATS[memory_format])
    independent = fold_batch_norms(plain)
    models: dict[str, nn.Module] = dict(zip(BASES, (gcnet.fold(plain), independent), strict=True))
    for block, peers in (("gc", ("mmcv", "timm")), ("se", ("timm",))):
        ours = with_ours(plain, block)
        models[f"{block}: ours, gcnet.fold"] = gcnet.fold(ours)
        for peer in peers:
            models[f"{block}: {peer}, norms merged by PyTorch"] = with_peers(independent, ours, peer)
    return {name: model.to(memory_format=FORMATS[memory_format]) for name, model in models.items()}


def check(models: dict[str, nn.Module], x: torch.Tensor) -> float:
    """Largest relative difference between networks that must agree; those that must not have to differ."""
    outputs = {name: model(x) for name, model in models.items()}
    groups = {name: [out for other, out in outputs.items() if other.startswith(name)] for name in ("none", "gc", "se")}
    for block in ("gc", "se"):
        assert difference(groups[block][0], groups["none"][0]) > 100 * TOLERANCE, f"{block} blocks do nothing"
    worst = max(difference(out, group[-1]) for group in groups.values() for out in group[:-1])
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    return worst


def measure(models: dict[str, nn.Module], x: torch.Tensor, *, goal: float, rounds: int, seconds: float) -> Row:
    with torch.inference_mode():
        worst = check(models, x)
        taken = inference_in_step(models, x, rounds=rounds, seconds=seconds)
    return {
        "goal": goal,
        "difference": worst,
        **times_and_taxes(taken, BASES),
    }


def table(rows: list[Row]) -> str:
    lines = tax_table(rows, "network, input, format", BASES, lambda row, name: row["goal"] if "ours" in name else None)
    worst = max(row["difference"] for row in rows)
    return f"{lines}\n\n{INTERVALS} Largest relative difference of outputs that must agree: {worst:.0e}."


def main() -> None:
    arguments = start(options(__doc__, only="resnet50 *"))
    built = lru_cache(maxsize=1)(networks)  # one set serves all inputs of its format

    def case(name: str, shape: tuple[int, ...], memory_format: str) -> Row:
        seconds, goal = INPUTS[shape]
        models = built(ARCHITECTURES[name], memory_format)
        x = torch.randn(shape).to(memory_format=FORMATS[memory_format])
        effort = arguments.effort
        return measure(models, x, goal=goal, rounds=round(40 * effort), seconds=seconds * effort)

    cases = {
        f"{name} {'x'.join(map(str, shape))} {memory_format}": partial(case, name, shape, memory_format)
        for name in ARCHITECTURES
        for memory_format in FORMATS
        for shape in INPUTS
        if name == "resnet50" or shape[-1] > 224
    }
    about = "Context tax at inference: GC and SE (r = 16) in c3 to c5, float32, CPU, eager"
    take("context_tax", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
