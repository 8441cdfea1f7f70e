"""mmdetection's names of tensors in ours: mmdet 2 and 3, and what mmdet 1 and the 2019 GCNet repository called them.

| theirs | ours |
|---|---|
| `backbone.layer2.0.conv2.weight` | `backbone.body.layer2.0.conv2.weight` |
| `backbone.layer2.0.context_block.*` and other plugins | `backbone.body.layer2.0.context.*`, see `plugins` |
| `neck.lateral_convs.I` | `backbone.fpn.inner_blocks.I.0` |
| `neck.fpn_convs.I` | `backbone.fpn.layer_blocks.I.0`, those beyond the laterals `extra_blocks.p6`, `.p7` |
| `rpn_head.*` | `rpn.head.*` |
| `roi_head.bbox_head.*`, `roi_head.mask_head.*` | `roi_heads.{box_head,box_predictor,mask_head,mask_predictor}.*` |
| the same with `.0.`, `.1.`, `.2.` (cascade) | `roi_heads.stages.{0,1,2}.*` |
| `bbox_head.{cls_convs,reg_convs,retina_cls,retina_reg}` | `head.{classification_head,regression_head}.*` |

Older: `conv2_offset` for `conv2.conv_offset`; `bbox_head` and `mask_head` without `roi_head`, with the background as
the first class (and unused rows for it in the box and mask predictors); plain convolutions in RetinaNet's towers. The
flattened order of the first fully connected layer (channel, row, column) is the same in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gcnet.checkpoints.mmdet import plugins
from gcnet.errors import CheckpointError, some
from gcnet.files.tensors import plain_names

_CONV = r"(?P<leaf>weight|bias)"
_NORM = r"(?:bn|gn|norm)\.(?P<leaf>weight|bias|running_mean|running_var|num_batches_tracked)"

# Whole names, tried in this order. {stage} is "stages.K." in a cascade, else empty.
_TABLE: list[tuple[str, str]] = [
    (r"neck\.lateral_convs\.(?P<i>\d+)\.conv\." + _CONV, "backbone.fpn.inner_blocks.{i}.0.{leaf}"),
    (r"neck\.lateral_convs\.(?P<i>\d+)\." + _NORM, "backbone.fpn.inner_blocks.{i}.1.{leaf}"),
    (r"neck\.fpn_convs\.(?P<i>\d+)\.conv\." + _CONV, "backbone.fpn.layer_blocks.{i}.0.{leaf}"),
    (r"neck\.fpn_convs\.(?P<i>\d+)\." + _NORM, "backbone.fpn.layer_blocks.{i}.1.{leaf}"),
    (r"rpn_head\.rpn_conv\." + _CONV, "rpn.head.conv.0.0.{leaf}"),
    (r"rpn_head\.rpn_cls\." + _CONV, "rpn.head.cls_logits.{leaf}"),
    (r"rpn_head\.rpn_reg\." + _CONV, "rpn.head.bbox_pred.{leaf}"),
    (r"bbox_head\.cls_convs\.(?P<i>\d+)\.conv\." + _CONV, "head.classification_head.conv.{i}.0.{leaf}"),
    (r"bbox_head\.cls_convs\.(?P<i>\d+)\." + _NORM, "head.classification_head.conv.{i}.1.{leaf}"),
    (r"bbox_head\.cls_convs\.(?P<i>\d+)\." + _CONV, "head.classification_head.conv.{i}.0.{leaf}"),
    (r"bbox_head\.reg_convs\.(?P<i>\d+)\.conv\." + _CONV, "head.regression_head.conv.{i}.0.{leaf}"),
    (r"bbox_head\.reg_convs\.(?P<i>\d+)\." + _NORM, "head.regression_head.conv.{i}.1.{leaf}"),
    (r"bbox_head\.reg_convs\.(?P<i>\d+)\." + _CONV, "head.regression_head.conv.{i}.0.{leaf}"),
    (r"bbox_head\.retina_cls\." + _CONV, "head.classification_head.cls_logits.{leaf}"),
    (r"bbox_head\.retina_reg\." + _CONV, "head.regression_head.bbox_reg.{leaf}"),
    (r"bbox_head\.shared_convs\.(?P<i>\d+)\.conv\." + _CONV, "roi_heads.{stage}box_head.{i}.0.{leaf}"),
    (r"bbox_head\.shared_convs\.(?P<i>\d+)\." + _NORM, "roi_heads.{stage}box_head.{i}.1.{leaf}"),
    (r"bbox_head\.fc_cls\." + _CONV, "roi_heads.{stage}box_predictor.cls_score.{leaf}"),
    (r"bbox_head\.fc_reg\." + _CONV, "roi_heads.{stage}box_predictor.bbox_pred.{leaf}"),
    (r"mask_head\.convs\.(?P<i>\d+)\.conv\." + _CONV, "roi_heads.{stage}mask_head.{i}.0.{leaf}"),
    (r"mask_head\.convs\.(?P<i>\d+)\." + _NORM, "roi_heads.{stage}mask_head.{i}.1.{leaf}"),
    (r"mask_head\.upsample\." + _CONV, "roi_heads.{stage}mask_predictor.conv5_mask.{leaf}"),
    (r"mask_head\.conv_logits\." + _CONV, "roi_heads.{stage}mask_predictor.mask_fcn_logits.{leaf}"),
]
_PATTERNS = [(re.compile(pattern), ours) for pattern, ours in _TABLE]
_SHARED_FC = re.compile(r"bbox_head\.shared_fcs\.(?P<i>\d+)\." + _CONV)
_PLAIN_UNIT = re.compile(
    r"(?:layer\d+\.\d+\.)?(?:(?:conv\d|conv2\.conv_offset|downsample\.0)\.(?:weight|bias)"
    r"|(?:bn\d|downsample\.1)\.(?:weight|bias|running_mean|running_var|num_batches_tracked))"
)


def is_mmdet(keys: Mapping[str, object]) -> bool:
    """Whether these are names of an mmdet detector."""
    return any(key.startswith("backbone.layer") for key in keys) and any(key.startswith("neck.") for key in keys)


def is_background_first(keys: Mapping[str, object]) -> bool:
    """Whether they are those of mmdet 1 (before May 2020), whose RoI heads count the background as class 0."""
    pattern = re.compile(r"bbox_head\.(?:\d+\.)?(?:fc_cls|fc_reg)\.")
    return any(pattern.match(key) for key in keys)


def translate(state_dict: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The same tensors under our names, in our shapes (views), in the file's order.

    The classes keep their order: 0 to C-1, the background last; files of mmdet 1 have theirs brought into it.

    Args:
        state_dict: What mmdet 1 to 3 saved; the tensors may be on the meta device.
        config: The mmdet config as data, which tells where in a unit a plugin sits; None if there is none.

    Raises:
        CheckpointError: names that this table does not know, all of them counted, the first ones listed; two names that
            mean the same tensor; plugins that gcnet does not have.
    """
    theirs = plain_names(state_dict)
    if is_background_first(theirs):
        theirs = _from_version_1(theirs)
    of_blocks = plugins.translate(theirs, plugins.slots(theirs, config or {}))
    laterals = len({key.split(".")[2] for key in theirs if key.startswith("neck.lateral_convs.")})
    convs = len({key.split("shared_convs.")[1].split(".")[0] for key in theirs if ".shared_convs." in key})
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in theirs.items():
        name = _name(key.replace(".conv2_offset.", ".conv2.conv_offset."), laterals, convs)
        if name is None and key in of_blocks:
            name, value = of_blocks[key]
        if name is None:
            unknown.append(key)
        elif name in ours:
            raise CheckpointError(f"two tensors of the file stand for {name}; the second is {key}")
        else:
            ours[name] = value
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} of {len(theirs)} tensors are of no layer of mmdet that gcnet knows: {some(unknown)}"
        )
    return ours


def _name(key: str, laterals: int, convs: int) -> str | None:
    if key.startswith("backbone."):
        key = key.removeprefix("backbone.")
        return f"backbone.body.{key}" if _PLAIN_UNIT.fullmatch(key) else None
    stage = ""
    if match := re.match(r"roi_head\.(bbox_head|mask_head)\.(?:(\d+)\.)?", key):
        stage = f"stages.{match[2]}." if match[2] else ""
        key = f"{match[1]}.{key[match.end() :]}"
        if fc := _SHARED_FC.fullmatch(key):
            # torchvision: fc6, fc7; behind convolutions a Sequential (Flatten, Linear, ReLU, Linear, ...)
            i = int(fc["i"])
            name = f"fc{6 + i}" if convs == 0 else f"{convs + 1 + 2 * i}"
            return f"roi_heads.{stage}box_head.{name}.{fc['leaf']}"
    for pattern, ours in _PATTERNS:
        if match := pattern.fullmatch(key):
            name = ours.format(stage=stage, **match.groupdict())
            return _extra_level(name, laterals)
    return None


def _extra_level(name: str, laterals: int) -> str:
    """Output convolutions beyond the lateral ones are P6 and P7: torchvision has them as `extra_blocks`."""
    match = re.match(r"backbone\.fpn\.layer_blocks\.(\d+)\.0\.", name)
    if match is None or int(match[1]) < laterals:
        return name
    return f"backbone.fpn.extra_blocks.p{6 + int(match[1]) - laterals}.{name[match.end() :]}"


def _from_version_1(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """mmdet 2's names and order of classes: the background from first to last, its unused rows dropped."""
    rows = max(value.shape[0] for key, value in theirs.items() if re.search(r"fc_cls\.weight$", key))
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "fc_cls": lambda t: t.roll(-1, 0),
        "fc_reg": lambda t: t if t.shape[0] == 4 else t[t.shape[0] // rows :],
        "conv_logits": lambda t: t if t.shape[0] == 1 else t[1:],
    }
    result: dict[str, Tensor] = {}
    for key, value in theirs.items():
        if key.startswith(("bbox_head.", "mask_head.")):
            layer = key.split(".")[-2]
            value = changes[layer](value) if layer in changes else value
            key = f"roi_head.{key}"
        result[key] = value
    return result
