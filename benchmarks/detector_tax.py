"""The context tax end to end: how much slower a whole Mask R-CNN becomes by GC blocks in c3 to c5, on the CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/detector_tax.py

ResNet-50 with FPN, GC with r = 16, one image of 800 x 1088. All sides do the same work, whatever their weights are:
backbone, pyramid, RPN head, box head on 1000 fixed boxes, mask head on 100 of these. What depends on what a network
finds (choosing proposals and detections, pasting masks) is left out; no block changes it, and it would dilute the tax.

As in `context_tax.py` there are two plain networks: `gcnet.fold` of the plain detector, and one whose norms PyTorch's
own function merged. Ours is `gcnet.fold` of the `gcnet.insert`-ed one; mmcv's ContextBlock with the same weights sits
in the second. Checked first: folded and unfolded give the same in every head, and so do ours and mmcv's.
Random weights, float32, eager, inference mode; the networks go in step, unit after unit and head after head.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import gcnet
from lockstep import Part, inference_in_step
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
OURS, MMCV = "gc: ours, gcnet.fold", "gc: mmcv, norms merged by PyTorch"
BOXES, MASKS = 1000, 100
TOLERANCE = 1e-4
GOAL = 0.01


def mask_rcnn() -> nn.Module:
    return gcnet.create_model("maskrcnn_resnet50_fpn", num_classes=80)


def networks(build: Callable[[], nn.Module], memory_format: str) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """What takes turns, and the two unfolded networks that it must agree with; all in eval mode."""
    torch.manual_seed(0)
    plain: Any = awaken(build()).eval().to(memory_format=FORMATS[memory_format])  # type: ignore[call-overload]
    ours: Any = with_ours(plain, "gc")
    merged = fold_batch_norms(plain.backbone.body)
    models = {
        BASES[0]: gcnet.fold(plain),
        BASES[1]: _with_body(plain, merged),
        OURS: gcnet.fold(ours),
        MMCV: _with_body(plain, with_peers(merged, ours.backbone.body, "mmcv")),
    }
    layout = FORMATS[memory_format]
    return {name: model.to(memory_format=layout) for name, model in models.items()}, {"none": plain, "gc": ours}  # type: ignore[call-overload]


def _with_body(detector: Any, body: nn.Module) -> nn.Module:
    detector = copy.deepcopy(detector)
    detector.backbone.body = body
    return detector


def fixed_boxes(size: tuple[int, int]) -> torch.Tensor:
    """BOXES boxes inside of an image of that height and width, of all levels of the pyramid."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    sides = 16 * 32 ** torch.rand(BOXES, 2, generator=generator)  # 16 to 512 pixels
    limits = torch.tensor([width, height])
    sides = sides.minimum(limits / 2)
    corners = torch.rand(BOXES, 2, generator=generator) * (limits - sides)
    return torch.cat([corners, corners + sides], dim=1)


def parts(detector: Any, boxes: torch.Tensor, size: tuple[int, int]) -> list[Part]:
    """The detector as a chain of parts: the layers of the stem, the residual units, the pyramid, the three heads.

    A part takes what the one before gave: a map; from the first stage on the map and those that the pyramid takes; from
    the pyramid on (its levels, the outputs so far).
    """
    backbone, heads = detector.backbone, detector.roi_heads

    def unit(module: nn.Module, first: bool, last: bool, state: Any) -> Any:
        x, maps = (state, []) if first else state
        x = module(x)
        return x, [*maps, x] if last else maps

    def pyramid(state: Any) -> Any:
        levels = backbone.pyramid(state[1])
        return levels, list(levels.values())

    def rpn_head(state: Any) -> Any:
        levels, outputs = state
        objectness, deltas = detector.rpn.head(list(levels.values()))
        return levels, [*outputs, *objectness, *deltas]

    def box_head(state: Any) -> Any:
        levels, outputs = state
        pooled = heads.box_roi_pool(levels, [boxes], [size])
        return levels, [*outputs, *heads.box_predictor(heads.box_head(pooled))]

    def mask_head(state: Any) -> Any:
        levels, outputs = state
        pooled = heads.mask_roi_pool(levels, [boxes[:MASKS]], [size])
        return levels, [*outputs, heads.mask_predictor(heads.mask_head(pooled))]

    body = backbone.body
    stages = [list(getattr(body, f"layer{i}")) for i in (1, 2, 3, 4)]
    units = [
        partial(unit, module, stage is stages[0] and module is stage[0], module is stage[-1])
        for stage in stages
        for module in stage
    ]
    return [body.conv1, body.bn1, body.relu, body.maxpool, *units, pyramid, rpn_head, box_head, mask_head]


def check(models: dict[str, nn.Module], unfolded: dict[str, nn.Module], split: Any, x: torch.Tensor) -> float:
    """Largest relative difference of any output from that of the unfolded network; blocks must make one themselves."""

    def outputs(model: nn.Module) -> list[torch.Tensor]:
        state: Any = x
        for part in split(model):
            state = part(state)
        return state[1]

    expected = {name: outputs(model) for name, model in unfolded.items()}
    changed = [difference(a, b) for a, b in zip(expected["gc"], expected["none"], strict=True)]
    assert min(changed) > 10 * TOLERANCE, "gc blocks do nothing"
    worst = 0.0
    for name, model in models.items():
        for i, (a, b) in enumerate(zip(outputs(model), expected[name.split(":")[0]], strict=True)):
            worst = max(worst, difference(a, b))
            assert worst <= TOLERANCE, f"{name}, output {i}: relative difference {worst:.1e}"
    return worst


def measure(
    build: Callable[[], nn.Module], memory_format: str, size: tuple[int, int], *, rounds: int, seconds: float
) -> Row:
    models, unfolded = networks(build, memory_format)
    x = torch.randn(1, 3, *size).to(memory_format=FORMATS[memory_format])
    split = partial(parts, boxes=fixed_boxes(size), size=size)
    with torch.inference_mode():
        worst = check(models, unfolded, split, x)
        taken = inference_in_step(models, x, split=split, rounds=rounds, seconds=seconds)
    return {
        "difference": worst,
        **times_and_taxes(taken, BASES),
    }


def table(rows: list[Row]) -> str:
    lines = tax_table(rows, "image, format", BASES, lambda row, name: GOAL if name == OURS else None)
    worst = max(row["difference"] for row in rows)
    return (
        f"{lines}\n\n{INTERVALS} Largest relative difference of outputs (pyramid, RPN, boxes, masks) "
        f"that must agree: {worst:.0e}. Backbone, pyramid, RPN head, box head on {BOXES} fixed boxes, mask head on "
        f"{MASKS} of them; without the choice of proposals and detections and the pasting of masks."
    )


def main() -> None:
    arguments = start(options(__doc__))
    effort = arguments.effort
    size = (800, 1088)
    cases = {
        f"1x3x{size[0]}x{size[1]} {memory_format}": partial(
            measure, mask_rcnn, memory_format, size, rounds=max(round(12 * effort), 1), seconds=220 * effort
        )
        for memory_format in FORMATS
    }
    about = "Context tax of a whole Mask R-CNN R50 at inference: GC (r = 16) in c3 to c5, float32, CPU, eager"
    take("detector_tax", about, cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
