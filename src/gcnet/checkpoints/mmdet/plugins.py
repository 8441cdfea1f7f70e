"""mmdet's plugins: the blocks inside the Bottlenecks of a backbone, by name, place and settings.

| mmcv's class | name in a unit, with a postfix of the config's | ours |
|---|---|---|
| ContextBlock | `context_block` | gc, or context |
| NonLocal2d | `nonlocal_block` | nl |
| GeneralizedAttention | `gen_attention_block` | ga |

| position | behind | our slot |
|---|---|---|
| after_conv1 | the first convolution, its norm and ReLU | `context_before_3x3` |
| after_conv2 | the second, its norm and ReLU | `context_after_3x3` |
| after_conv3 | the third and its norm | `context` |

Names do not tell the position. The config does; without one, channels tell the end of the branch from the inside, and
the inside is taken for after_conv2, the only place there in a published configuration. The repository of 2019 has no
plugins but `gcb` (after_conv3) and `gen_attention` (after_conv2), under the same names of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gcnet.checkpoints.content import other_settings, table, value_at
from gcnet.errors import CheckpointError

SLOTS = {"after_conv1": "context_before_3x3", "after_conv2": "context_after_3x3", "after_conv3": "context"}
_KINDS = {
    "ContextBlock": "context_block",
    "NonLocal2d": "nonlocal_block",
    "NonLocal2D": "nonlocal_block",
    "GeneralizedAttention": "gen_attention_block",
}
_ONLY_IN_TRAINING = ("DropBlock",)

# Inside a block; the layers there are 1x1 convolutions and maps of one position, ours are linear layers and vectors.
_LAYERS = {
    "context_block": {
        "conv_mask": "key",
        "channel_add_conv.0": "add.reduce",
        "channel_add_conv.1": "add.norm",
        "channel_add_conv.3": "add.expand",
        "channel_mul_conv.0": "scale.reduce",
        "channel_mul_conv.1": "scale.norm",
        "channel_mul_conv.3": "scale.expand",
    },
    "nonlocal_block": {
        "theta.conv": "theta",
        "phi.conv": "phi",
        "phi.0.conv": "phi",
        "g.conv": "g",
        "g.0.conv": "g",
        "conv_out.conv": "out",
        "conv_out.bn": "norm",
    },
    "gen_attention_block": {
        "query_conv": "query",
        "key_conv": "key",
        "value_conv": "value",
        "appr_geom_fc_x": "columns",
        "appr_geom_fc_y": "rows",
        "proj_conv": "out",
    },
}
_TENSORS: dict[str, dict[str, str]] = {
    "nonlocal_block": {"concat_project.conv.weight": "concat_weight"},
    "gen_attention_block": {"appr_bias": "content_bias", "geom_bias": "position_bias", "gamma": "gamma"},
}
_READS_MAP = re.compile(r"(?:channel_(?:add|mul)_conv\.0|g\.conv|g\.0\.conv|value_conv)\.weight")
_KEY = re.compile(r"backbone\.(layer\d+\.\d+)\.((context_block|nonlocal_block|gen_attention_block)[^.]*)\.(.+)")

# Settings with a single value that gcnet builds, by kind: (path, allowed values).
_FIXED: dict[str, list[tuple[str, tuple[Any, ...]]]] = {
    "nonlocal_block": [("conv_cfg.type", ("Conv2d", "Conv")), ("norm_cfg.eps", (1e-5,))],
    "gen_attention_block": [("spatial_range", (-1,)), ("q_stride", (1,)), ("position_magnitude", (1,))],
}


@dataclass(frozen=True)
class Plugin:
    """What a config says about a block in the units of one stage ("c2" to "c5")."""

    stage: str
    kind: str
    name: str
    position: str
    settings: Mapping[str, Any]


def configured(config: Mapping[str, Any]) -> list[Plugin]:
    """The plugins of a config, one for each stage that has it; none without a config.

    Raises:
        CheckpointError: a plugin, or a setting of one, that gcnet does not build.
    """
    found = []
    for settings, position, stages in _entries(config):
        type_name = str(settings.get("type")).rpartition(".")[2]  # "mmcv.ContextBlock" names its registry
        if type_name in _ONLY_IN_TRAINING:
            continue
        if type_name not in _KINDS or position not in SLOTS:
            raise CheckpointError(
                f"its config puts a {type_name!r} into the backbone at {position!r}; gcnet reads "
                f"{', '.join(k for k in _KINDS if k != 'NonLocal2D')} at {', '.join(SLOTS)}"
            )
        kind = _KINDS[type_name]
        if wrong := other_settings(settings, _FIXED.get(kind, [])):
            raise CheckpointError(f"its config has a {type_name} that gcnet does not build: {wrong}")
        name = kind + str(settings.get("postfix", ""))
        found += [Plugin(stage, kind, name, position, settings) for stage in stages]
    return found


def only_in_training(config: Mapping[str, Any]) -> list[str]:
    """Plugins of a config that do nothing in evaluation and are left out."""
    names = [str(settings.get("type")).rpartition(".")[2] for settings, _, stages in _entries(config) if stages]
    return [name for name in names if name in _ONLY_IN_TRAINING]


def slots(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, str]:
    """Where each block sits: `{"layer3.0.context_block": "layer3.0.context"}`.

    Args:
        tensors: mmdet's names; the tensors may be on the meta device.
        config: the mmdet config as data; {} if there is none.

    Raises:
        CheckpointError: a block that does not fit any place, two at one place, or one that gcnet does not have.
    """
    places = {(plugin.stage, plugin.name): plugin.position for plugin in configured(config)}
    there = {(_stage(match[1]), match[2]) for key in tensors if (match := _KEY.fullmatch(key))}
    absent = [f"{name} in {stage}" for stage, name in places if (stage, name) not in there]
    if absent:
        raise CheckpointError(f"its config has blocks of which the file has no tensors: {', '.join(absent)}")
    channels: dict[tuple[str, str, str], int] = {}
    for key, value in tensors.items():
        if (match := _KEY.fullmatch(key)) is None:
            continue
        if match[4] == "local_constraint_map":
            raise CheckpointError(
                f"{match[1]}.{match[2]} looks at a neighbourhood only (spatial_range, from its local_constraint_map); "
                "gcnet has generalized attention over the whole map"
            )
        if _READS_MAP.fullmatch(match[4]):
            channels[match[1], match[2], match[3]] = value.shape[1]
    found: dict[str, str] = {}
    for (unit, name, kind), seen in channels.items():
        narrow, wide = (_width(tensors, unit, layer) for layer in ("conv2", "conv3"))
        wide = narrow if wide is None else wide  # a BasicBlock
        position = places.get((_stage(unit), name))
        if position is None:
            inside = seen == narrow and (narrow != wide or kind == "gen_attention_block")
            position = "after_conv2" if inside else "after_conv3"
        expected = wide if position == "after_conv3" else narrow
        if seen != expected:
            raise CheckpointError(
                f"{unit}.{name} sees {seen} channels; at {position} there are {expected}"
                f"{'' if position != 'after_conv3' else f', inside the unit {narrow}'}"
            )
        slot = f"{unit}.{SLOTS[position]}"
        other = next((block for block, taken in found.items() if taken == slot), None)
        if other is not None:
            raise CheckpointError(
                f"two blocks at one place: {other} and {unit}.{name}, both at {position}; gcnet puts one at a place"
            )
        found[f"{unit}.{name}"] = slot
    return found


def translate(tensors: Mapping[str, Tensor], found: Mapping[str, str]) -> dict[str, tuple[str, Tensor]]:
    """Our names (under `backbone.body.`) and shapes of the tensors that are of a block, by their names."""
    ours = {}
    for key, value in tensors.items():
        match = _KEY.fullmatch(key)
        slot = None if match is None else found.get(f"{match[1]}.{match[2]}")
        if match is None or slot is None:
            continue
        kind, (layer, _, leaf) = match[3], match[4].rpartition(".")
        name = _TENSORS.get(kind, {}).get(match[4])
        if name is None and layer not in _LAYERS[kind]:
            continue
        name = name or f"{_LAYERS[kind][layer]}.{leaf}"
        if value.ndim == 3 or name == "concat_weight":  # a norm of a (C, 1, 1) map is one of a vector
            value = value.flatten()
        ours[key] = f"backbone.body.{slot}.{name}", value.flatten(1) if value.ndim == 4 else value
    return ours


def subsampled(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> set[str]:
    """The slots whose non-local blocks pool keys and values: their layers sit in a Sequential."""
    matches = (_KEY.fullmatch(key) for key in tensors)
    pooling = {f"{m[1]}.{m[2]}" for m in matches if m and m[3] == "nonlocal_block" and m[4].startswith("g.0.")}
    return {slot for block, slot in slots(tensors, config).items() if block in pooling}


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Any, list[str]]]:
    """(settings, position, stages) of each plugin in a config of mmdet 2 and 3, or of 2019."""
    backbone = table(value_at(config, "model.backbone"))
    plugins = backbone.get("plugins")
    for plugin in plugins if isinstance(plugins, list | tuple) else ():
        settings = plugin.get("cfg") if isinstance(plugin, Mapping) else None
        if isinstance(settings, Mapping):
            yield settings, plugin.get("position"), _stages(plugin.get("stages", (True,) * 4))
    for name, kind, position in (
        ("gcb", "ContextBlock", "after_conv3"),
        ("gen_attention", "GeneralizedAttention", "after_conv2"),
    ):
        settings = backbone.get(name)
        if isinstance(settings, Mapping):
            yield {"type": kind} | dict(settings), position, _stages(backbone.get(f"stage_with_{name}", ()))


def _stage(unit: str) -> str:
    """ "c4" of "layer3.0"."""
    return f"c{int(unit[5]) + 1}"


def _stages(chosen: Any) -> list[str]:
    return [f"c{i + 2}" for i, on in enumerate(chosen) if on] if isinstance(chosen, list | tuple) else []


def _width(tensors: Mapping[str, Tensor], unit: str, layer: str) -> int | None:
    weight = tensors.get(f"backbone.{unit}.{layer}.weight")
    return None if weight is None else weight.shape[0]
