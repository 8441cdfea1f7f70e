"""Which block of ours a set of shapes is: the options of `gcnet.insert` for one block of mmcv."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from gcnet.checkpoints.mmdet.facts import Facts
from gcnet.checkpoints.mmdet.plugins import SLOTS
from gcnet.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
_AFTER = {slot: position for position, slot in SLOTS.items()}  # mmdet's word for the place
_POSITIONS = {"context": "after_1x1"}  # ours; the other slots are named after theirs
_TERMS = ["".join(digits) for digits in product("01", repeat=4) if "1" in digits]


def block_of(shapes: Shapes, stage: str, slot: str, facts: Facts, *, subsampled: bool, placed: bool) -> dict[str, Any]:
    """`block`, its place and its options, from the shapes of its tensors under our names.

    Args:
        shapes: By name inside the block.
        stage: "c2" to "c5".
        slot: Where it sits in its unit.
        facts: Answers of the config.
        subsampled: Whether the names of a non-local block tell that it pools keys and values.
        placed: Whether its channels alone tell the slot.

    Raises:
        CheckpointError: tensors that no block of ours has.
    """
    position = _POSITIONS.get(slot, slot.removeprefix("context_"))
    if "g.weight" in shapes:
        kind, read = "nonlocal_block", _nonlocal(shapes, stage, _AFTER[slot], facts, subsampled)
    elif "value.weight" in shapes:
        kind, read = "gen_attention_block", _generalized(shapes, stage, _AFTER[slot], facts)
    else:
        kind, read = "context_block", _context(shapes, stage)
    if not placed and facts.plugin(stage, _AFTER[slot], kind) is None:
        facts.assume(f"position of the {kind} plugins in {stage}", _AFTER[slot])
    return {"position": position} | read


def _context(shapes: Shapes, stage: str) -> dict[str, Any]:
    branches = [branch for branch in ("scale", "add") if f"{branch}.reduce.weight" in shapes]
    if not branches:
        raise CheckpointError(f"the context block in {stage} neither scales nor adds: it holds {', '.join(shapes)}")
    hidden, channels = shapes[f"{branches[0]}.reduce.weight"]
    if hidden == 0:
        raise CheckpointError(f"the context block in {stage} has no hidden channel: its ratio is too small")
    narrow = {"reduction": channels // hidden} if channels % hidden == 0 else {"hidden": hidden}
    attention = "key.weight" in shapes
    if attention and branches == ["add"]:
        return {"block": "gc"} | narrow
    fusion = "both" if len(branches) == 2 else branches[0]
    gate = {} if fusion == "add" else {"gate": "sigmoid"}
    return {"block": "context", "pool": "attention" if attention else "average", "fusion": fusion} | gate | narrow


def _nonlocal(shapes: Shapes, stage: str, position: str, facts: Facts, subsampled: bool) -> dict[str, Any]:
    inner, channels = shapes["g.weight"]
    plugin = facts.plugin(stage, position, "nonlocal_block")
    settings = None if plugin is None else plugin.settings

    def told(key: str, default: Any) -> Any:  # mmcv's defaults are those that are assumed
        if settings is not None:
            return settings.get(key, default)
        return facts.assume(f"{key} of the non-local blocks in {stage}", default)

    if "concat_weight" in shapes:
        pairwise = "concatenation"
    elif "theta.weight" not in shapes:
        pairwise = "gaussian"
    else:
        pairwise = told("mode", "embedded_gaussian")
        if pairwise not in ("embedded_gaussian", "dot_product"):
            raise CheckpointError(
                f"its config says mode={pairwise!r} in {stage}, where the tensors are of another mode"
            )
    scaled = pairwise == "embedded_gaussian" and bool(told("use_scale", True))
    options = {"block": "nl", "pairwise": pairwise, "reduction": channels // inner}
    options["scale"] = inner**-0.5 if scaled else 1.0
    options["subsample"] = "after" if subsampled else False
    options["norm"] = "batch" if "norm.weight" in shapes else None
    return options


def _generalized(shapes: Shapes, stage: str, position: str, facts: Facts) -> dict[str, Any]:
    """Terms as far as tensors tell them; heads and stride are told by the config alone."""
    hidden, channels = shapes["value.weight"]
    plugin = facts.plugin(stage, position, "gen_attention_block")
    settings = None if plugin is None else plugin.settings

    def told(key: str, default: Any, assumed: Any) -> Any:
        if settings is not None:
            return settings.get(key, default)
        return facts.assume(f"{key} of the generalized attention in {stage}", assumed)

    fitting = [terms for terms in _TERMS if _layers(terms) == {name for name in _OPTIONAL if name in shapes}]
    if not fitting:
        raise CheckpointError(f"the generalized attention in {stage} has tensors of no terms: {', '.join(shapes)}")
    if len(fitting) == 1 and settings is None:
        terms = fitting[0]
    else:
        terms = str(told("attention_type", "1111", max(fitting, key=lambda terms: terms.count("1"))))
    if terms not in fitting:
        raise CheckpointError(
            f"its config says attention_type={terms!r} in {stage}, the tensors are of {' or '.join(fitting)}"
        )
    if terms[1] == "1" and terms[3] == "0":
        raise CheckpointError(
            f"attention_type={terms!r} in {stage}: without the fourth term mmcv mixes up rows and columns in the "
            "second, and fails where a map is not square; gcnet does not reproduce that"
        )
    published = next((n for n in (8, 9) if channels // n * n == hidden), None)  # mmdet's configs, mmcv's default
    if published is None and settings is None:
        raise CheckpointError(
            f"the generalized attention in {stage} has {hidden} channels of {channels} in its heads, and no config "
            "tells num_heads"
        )
    options = {"block": "ga", "terms": terms, "heads": told("num_heads", 9, published)}
    options["kv_stride"] = told("kv_stride", 2, 2)
    if "rows.weight" in shapes and 2 * shapes["rows.weight"][1] != max(4, channels // 4 * 4):
        options["position_channels"] = 2 * shapes["rows.weight"][1]
    return options


_OPTIONAL = ("query.weight", "key.weight", "rows.weight", "content_bias", "position_bias")


def _layers(terms: str) -> set[str]:
    """The tensors of OPTIONAL that a choice of terms has."""
    pairs, relative, saliency, place = (digit == "1" for digit in terms)
    present = (pairs or relative, pairs or saliency, relative or place, saliency, place)
    return {name for name, there in zip(_OPTIONAL, present, strict=True) if there}
