"""What GC blocks in c3 to c5 add to a training step of ResNet-50 (batch 8, 224): ours and mmcv's, on the CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/training_step.py                          # two kinds of norms
    OMP_WAIT_POLICY=PASSIVE python benchmarks/training_step.py --only 'FrozenBatch*'    # the third

A step is forward and backward pass; the optimiser's is left out. The networks go in step, unit after unit. Norms: with
batch statistics; "eval", BatchNorm2d that uses and keeps its running statistics, weights trainable (mmdet's norm_eval);
torchvision's FrozenBatchNorm2d. Outputs and gradients of ours and mmcv's are compared first, for every row, in float64.
Random weights, float32, eager.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torchvision.models import resnet

from gcnet.analysis.intervals import median_interval
from lockstep import training_in_step
from measure import rounded
from peers import awaken, difference, freeze_batch_norms, with_ours, with_peers
from rows import (
    FORMATS,
    INTERVALS,
    Row,
    as_table,
    milliseconds,
    ms_cell,
    options,
    percent_cell,
    reached,
    start,
    take,
    time_over,
)

NORMS = ("batch statistics", "eval", "FrozenBatchNorm2d")
FROZEN_GOAL = 0.03  # highest tax with frozen norms
BATCH_GOAL = 0.5  # with batch statistics and channels_last: share of mmcv's tax
TOLERANCE = 1e-8


def resnet50() -> resnet.ResNet:
    return resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3])


def networks(build: Callable[[], resnet.ResNet], norms: str, memory_format: str) -> dict[str, nn.Module]:
    """The plain network, the one with our blocks, the one with mmcv's, in training mode."""
    torch.manual_seed(0)
    plain = awaken(build()).train()
    ours = with_ours(plain, "gc")
    models = {"none": plain, "ours": ours, "mmcv": with_peers(plain, ours, "mmcv")}
    for model in models.values():
        if norms == "FrozenBatchNorm2d":
            freeze_batch_norms(model)
        elif norms == "eval":
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        model.to(memory_format=FORMATS[memory_format])
    return models


def step(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    out = model(x)
    out.square().mean().backward()
    return out.detach()


def check(models: dict[str, nn.Module], x: torch.Tensor) -> float:
    """Largest relative difference, ours to mmcv's: outputs, all gradients of the blocks, all of the rest."""
    outputs = {name: step(model, x) for name, model in models.items()}
    assert difference(outputs["ours"], outputs["none"]) > 1e-3, "the blocks do nothing"
    ours, theirs = (_gradients(models[name]) for name in ("ours", "mmcv"))
    worst = max([difference(outputs["ours"], outputs["mmcv"]), *map(difference, ours, theirs)])
    assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
    return worst


def _gradients(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the blocks and of the rest, each as one vector; blocks hold their layers in the same order in both models."""
    inside = {id(p) for module in model.modules() if _is_block(module) for p in module.parameters()}
    parameters = list(model.parameters())
    blocks = torch.cat([_grad(p) for p in parameters if id(p) in inside])
    rest = torch.cat([_grad(p) for p in parameters if id(p) not in inside])
    return blocks, rest


def _is_block(module: nn.Module) -> bool:
    return type(module).__name__ in ("GlobalContext", "ContextBlock")


def _grad(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten()


def measure(
    build: Callable[[], resnet.ResNet],
    norms: str,
    memory_format: str,
    shape: tuple[int, ...],
    *,
    rounds: int,
    seconds: float,
) -> Row:
    models = networks(build, norms, memory_format)
    small = torch.randn(2, 3, 64, 64, dtype=torch.float64).to(memory_format=FORMATS[memory_format])
    worst = check({name: model.double() for name, model in models.items()}, small)
    for model in models.values():
        model.float()
    x = torch.randn(shape).to(memory_format=FORMATS[memory_format])
    taken = training_in_step(models, x, rounds=rounds, seconds=seconds)
    row: Row = {
        "norms": norms,
        "format": memory_format,
        "difference": worst,
        "ms": {name: rounded(milliseconds(values)) for name, values in taken.items()},
        "over": {name: rounded(time_over(taken, name, "none")) for name in ("ours", "mmcv")},
    }
    if norms != "batch statistics":
        row["goal"] = f"<= {FROZEN_GOAL * 100:.0f}: {reached(row['over']['ours'], 1 + FROZEN_GOAL)}"
    elif memory_format == "channels_last":
        rest = [  # our tax above half of mmcv's, inside the rounds: reaches zero or less when the goal is met
            a / n - 1 - BATCH_GOAL * (b / n - 1)
            for n, a, b in zip(taken["none"], taken["ours"], taken["mmcv"], strict=True)
        ]
        row["above_half_of_mmcv"] = rounded(median_interval(rest))
        row["goal"] = f"less than {BATCH_GOAL:g} of mmcv's: {reached(row['above_half_of_mmcv'], 0)}"
    return row


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for name, ms in row["ms"].items():
            tax = percent_cell(row["over"][name]) if name in row["over"] else ""
            goal = row.get("goal", "") if name == "ours" else ""
            lines.append(f"{row['case']} | {name} | {ms_cell(ms)} | {tax} | {goal} | {ms['n']}")
    worst = max(row["difference"] for row in rows)
    return (
        as_table("norms, format | GC blocks | ms | tax, % | goal | rounds", lines)
        + f"\n\n{INTERVALS} Largest relative difference of outputs and gradients, ours to mmcv's, float64: {worst:.0e}."
    )


def main() -> None:
    arguments = start(options(__doc__, only="[be]*"))
    effort = arguments.effort
    cases = {
        f"{norms}, {memory_format}": partial(
            measure,
            resnet50,
            norms,
            memory_format,
            (8, 3, 224, 224),
            rounds=round(40 * effort),
            seconds=25 * effort,
        )
        for norms in NORMS
        for memory_format in FORMATS
    }
    about = "Training step of ResNet-50 with GC (r = 16) in c3 to c5: batch 8, 224 x 224, float32, CPU, eager"
    take("training_step", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
