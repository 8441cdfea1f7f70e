"""Which blocks of ours the shapes of tensors are: calls of `gcnet.insert` for the plugins of mmdet."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Set
from itertools import product
from typing import Any

from torch import Tensor

from gcnet.checkpoints.mmdet.plugins import SLOTS, Plugin, configured
from gcnet.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
Settings = Mapping[str, Any] | None  # of a plugin; None where no config has it
UNIT = re.compile(r"backbone\.body\.layer([1-4])\.(\d+)\.")
_BLOCK = re.compile(rf"backbone\.body\.layer([1-4])\.(\d+)\.({'|'.join(SLOTS.values())})\.(.+)")
_MARKS = (("g.weight", "nonlocal_block"), ("value.weight", "gen_attention_block"))  # else a context block
_AFTER = {slot: position for position, slot in SLOTS.items()}  # mmdet's word for the place
_POSITIONS = {"context": "after_1x1"}  # ours; the other slots are named after theirs
_TERMS = ["".join(digits) for digits in product("01", repeat=4) if "1" in digits]


def inserts(
    state: Mapping[str, Tensor], config: Mapping[str, Any], subsampled: Set[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """One call of insert for each kind of block, with all stages that have it in the same units; what is assumed.

    The arguments are those of `architecture_of`.

    Raises:
        CheckpointError: tensors that no block of ours has, or a config that says otherwise.
    """
    blocks: dict[tuple[int, int, str], dict[str, tuple[int, ...]]] = defaultdict(dict)
    units: dict[str, set[int]] = defaultdict(set)  # of each stage
    for key, value in state.items():
        if match := UNIT.match(key):
            units[f"c{int(match[1]) + 1}"].add(int(match[2]))
        if match := _BLOCK.fullmatch(key):
            blocks[int(match[1]), int(match[2]), match[3]][match[4]] = tuple(value.shape)
    plugins = configured(config)
    where: dict[tuple[str, str], list[int]] = defaultdict(list)  # (options, stage) -> units
    options_of: dict[str, dict[str, Any]] = {}
    assumed: list[str] = []
    for (layer, unit, slot), shapes in sorted(blocks.items()):
        name = f"layer{layer}.{unit}"
        widths = [len(state[key]) for i in (2, 3) if (key := f"backbone.body.{name}.conv{i}.weight") in state]
        at_end = slot == "context" and (len(widths) < 2 or widths[0] != widths[1])
        stage = f"c{layer + 1}"
        options, lines = _block(shapes, stage, slot, plugins, subsampled=f"{name}.{slot}" in subsampled, placed=at_end)
        options_of[repr(options)] = options
        where[repr(options), stage].append(unit)
        assumed += lines
    calls: dict[tuple[str, str], dict[str, Any]] = {}  # one for the same options in the same units
    for (options, stage), chosen in where.items():
        units_of = "all" if len(chosen) == len(units[stage]) else chosen
        new = options_of[options] | {"stages": [], "where": units_of}
        calls.setdefault((options, repr(units_of)), new)["stages"].append(stage)
    return list(calls.values()), assumed


def _block(
    shapes: Shapes, stage: str, slot: str, plugins: list[Plugin], *, subsampled: bool, placed: bool
) -> tuple[dict[str, Any], list[str]]:
    """`block`, its place and its options, from the shapes of its tensors by our names inside it; what is assumed.

    `placed`: its channels alone tell the slot.
    """
    position = _AFTER[slot]
    kind = next((kind for mark, kind in _MARKS if mark in shapes), "context_block")
    plugin = next((p for p in plugins if (p.stage, p.position, p.kind) == (stage, position, kind)), None)
    settings = None if plugin is None else plugin.settings
    if kind == "nonlocal_block":
        options, assumed = _nonlocal(shapes, stage, settings, subsampled)
    elif kind == "gen_attention_block":
        options, assumed = _generalized(shapes, stage, settings)
    else:
        options, assumed = _context(shapes, stage), []
    if not placed and settings is None:
        assumed = [*assumed, f"position of the {kind} plugins in {stage}: {position}"]
    return {"position": _POSITIONS.get(slot, slot.removeprefix("context_"))} | options, assumed


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


def _nonlocal(shapes: Shapes, stage: str, settings: Settings, subsampled: bool) -> tuple[dict[str, Any], list[str]]:
    """mmcv's defaults are those that are assumed."""
    inner, channels = shapes["g.weight"]
    whose, assumed = f"the non-local blocks in {stage}", []
    if "concat_weight" in shapes:
        pairwise = "concatenation"
    elif "theta.weight" not in shapes:
        pairwise = "gaussian"
    else:
        pairwise, assumed = _told(settings, "mode", "embedded_gaussian", whose)
        if pairwise not in ("embedded_gaussian", "dot_product"):
            raise CheckpointError(
                f"its config says mode={pairwise!r} in {stage}, where the tensors are of another mode"
            )
    scale = 1.0
    if pairwise == "embedded_gaussian":
        scaled, lines = _told(settings, "use_scale", True, whose)
        scale, assumed = inner**-0.5 if scaled else 1.0, assumed + lines
    options = {"block": "nl", "pairwise": pairwise, "reduction": channels // inner, "scale": scale}
    options |= {"subsample": "after" if subsampled else False, "norm": "batch" if "norm.weight" in shapes else None}
    return options, assumed


def _generalized(shapes: Shapes, stage: str, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """Terms as far as tensors tell them; heads and stride are told by the config alone."""
    hidden, channels = shapes["value.weight"]
    whose, assumed = f"the generalized attention in {stage}", []
    fitting = [terms for terms in _TERMS if _layers(terms) == {name for name in _OPTIONAL if name in shapes}]
    if not fitting:
        raise CheckpointError(f"the generalized attention in {stage} has tensors of no terms: {', '.join(shapes)}")
    if len(fitting) == 1 and settings is None:
        terms = fitting[0]
    else:
        most = max(fitting, key=lambda terms: terms.count("1"))
        terms, assumed = _told(settings, "attention_type", "1111", whose, assumed=most)
        terms = str(terms)
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
    heads, of_heads = _told(settings, "num_heads", 9, whose, assumed=published)
    stride, of_stride = _told(settings, "kv_stride", 2, whose)
    options = {"block": "ga", "terms": terms, "heads": heads, "kv_stride": stride}
    if "rows.weight" in shapes and 2 * shapes["rows.weight"][1] != max(4, channels // 4 * 4):
        options["position_channels"] = 2 * shapes["rows.weight"][1]
    return options, [*assumed, *of_heads, *of_stride]


def _told(settings: Settings, key: str, default: Any, whose: str, *, assumed: Any = None) -> tuple[Any, list[str]]:
    """What a plugin's settings say, else mmcv's default; without settings what is assumed, and the line on it."""
    if settings is not None:
        return settings.get(key, default), []
    value = default if assumed is None else assumed
    return value, [f"{key} of {whose}: {value}"]


_OPTIONAL = ("query.weight", "key.weight", "rows.weight", "content_bias", "position_bias")


def _layers(terms: str) -> set[str]:
    """The tensors of OPTIONAL that a choice of terms has."""
    pairs, relative, saliency, place = (digit == "1" for digit in terms)
    present = (pairs or relative, pairs or saliency, relative or place, saliency, place)
    return {name for name, there in zip(_OPTIONAL, present, strict=True) if there}
