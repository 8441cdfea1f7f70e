"""Models of timm that hold context blocks: how much faster `gcnet.accelerate` and `gcnet.fold` make them on the CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/accelerated_models.py

Three forms take turns: timm's own; timm's own after `gcnet.fold`, which merges its norms and leaves its blocks; and
`gcnet.fold` of `gcnet.accelerate`. The speed-up over the second is what our blocks bring, over the first what a user
of timm sees. Equal outputs are checked first, for every row. Random weights, float32, eager, inference mode.
"""

from functools import lru_cache, partial

import timm
import torch
from torch import nn

import gcnet
from gcnet.surgery.timing import time_in_rounds
from measure import rounded, speed_up
from peers import awaken, difference
from rows import FORMATS, INTERVALS, Row, as_table, milliseconds, ms_cell, options, start, take, times_cell

MODELS = ("gcresnet50t", "seresnet50", "efficientnet_b0")
INPUTS: dict[tuple[int, ...], int] = {(1, 3, 224, 224): 4, (8, 3, 224, 224): 8}  # seconds of timing
PLAIN, FOLDED, OURS = "timm", "timm, gcnet.fold", "gcnet.accelerate, gcnet.fold"
TOLERANCE = 1e-4


def networks(name: str, memory_format: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    model = awaken(timm.create_model(name, pretrained=False)).eval().to(memory_format=FORMATS[memory_format])
    models = {PLAIN: model, FOLDED: gcnet.fold(model), OURS: gcnet.fold(gcnet.accelerate(model))}
    return {form: found.to(memory_format=FORMATS[memory_format]) for form, found in models.items()}


def measure(models: dict[str, nn.Module], x: torch.Tensor, *, rounds: int, seconds: float) -> Row:
    with torch.inference_mode():
        expected = models[PLAIN](x)
        worst = max(difference(models[form](x), expected) for form in (FOLDED, OURS))
        assert worst <= TOLERANCE, f"relative difference {worst:.1e}"
        taken = time_in_rounds({form: partial(model, x) for form, model in models.items()}, rounds, seconds)
    return {
        "difference": worst,
        "ms": {form: rounded(milliseconds(values)) for form, values in taken.items()},
        "ours_times_faster": {form: rounded(speed_up(taken, OURS, form)) for form in (PLAIN, FOLDED)},
    }


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for form, ms in row["ms"].items():
            faster = times_cell(row["ours_times_faster"][form]) if form in row["ours_times_faster"] else ""
            lines.append(f"{row['case']} | {form} | {ms_cell(ms)} | {faster} | {ms['n']}")
    header = "model, input, format | form | ms | accelerate + fold is so many times faster | rounds"
    worst = max(row["difference"] for row in rows)
    return f"{as_table(header, lines)}\n\n{INTERVALS} Largest relative difference of the outputs: {worst:.0e}."


def main() -> None:
    arguments = start(options(__doc__))
    effort = arguments.effort
    built = lru_cache(maxsize=1)(networks)  # one set serves all inputs of its format

    def case(name: str, shape: tuple[int, ...], memory_format: str) -> Row:
        x = torch.randn(shape).to(memory_format=FORMATS[memory_format])
        models = built(name, memory_format)
        return measure(models, x, rounds=round(60 * effort), seconds=INPUTS[shape] * effort)

    cases = {
        f"{name} {'x'.join(map(str, shape))} {memory_format}": partial(case, name, shape, memory_format)
        for name in MODELS
        for memory_format in FORMATS
        for shape in INPUTS
    }
    about = "Models of timm after gcnet.accelerate and gcnet.fold, inference, float32, CPU, eager"
    take("accelerated_models", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
