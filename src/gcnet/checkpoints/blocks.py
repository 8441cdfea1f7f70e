"""Which block of ours a set of shapes is: the options of `gcnet.insert` for one block of mmcv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcnet.checkpoints.errors import CheckpointError
from gcnet.checkpoints.facts import Facts


def block_of(shapes: Mapping[str, tuple[int, ...]], stage: str, facts: Facts) -> dict[str, Any]:
    """`block` and its options, at the end of the branch, from the shapes of its tensors under our names."""
    place = {"position": "after_1x1"}
    return place | (_nonlocal(shapes, stage, facts) if "g.weight" in shapes else _context(shapes, stage))


def _context(shapes: Mapping[str, tuple[int, ...]], stage: str) -> dict[str, Any]:
    branches = [branch for branch in ("scale", "add") if f"{branch}.reduce.weight" in shapes]
    if not branches:
        raise CheckpointError(f"the context block in {stage} neither scales nor adds: it holds {', '.join(shapes)}")
    hidden, channels = shapes[f"{branches[0]}.reduce.weight"]
    narrow = {"reduction": channels // hidden} if channels % hidden == 0 else {"hidden": hidden}
    attention = "key.weight" in shapes
    if attention and branches == ["add"]:
        return {"block": "gc"} | narrow
    fusion = "both" if len(branches) == 2 else branches[0]
    gate = {} if fusion == "add" else {"gate": "sigmoid"}
    return {"block": "context", "pool": "attention" if attention else "average", "fusion": fusion} | gate | narrow


def _nonlocal(shapes: Mapping[str, tuple[int, ...]], stage: str, facts: Facts) -> dict[str, Any]:
    inner, channels = shapes["g.weight"]
    if "concat_weight" in shapes:
        pairwise = "concatenation"
    elif "theta.weight" not in shapes:
        pairwise = "gaussian"
    else:
        pairwise = facts.nonlocal_mode(stage)
    scaled = pairwise == "embedded_gaussian" and facts.nonlocal_scale(stage)
    options = {"block": "nl", "pairwise": pairwise, "reduction": channels // inner}
    options["scale"] = inner**-0.5 if scaled else 1.0
    options["subsample"] = "after" if facts.nonlocal_subsample(stage) else False
    options["norm"] = "batch" if "norm.weight" in shapes else None
    return options
