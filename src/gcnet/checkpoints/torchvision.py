"""Files of torchvision's detectors: its names, those before version 0.14 too, in ours (which are its present ones)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gcnet.checkpoints import detectors
from gcnet.checkpoints.content import Adapter, Built, Content
from gcnet.checkpoints.mmdet.architecture import architecture_of

_OLD: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(weight|bias)"), r"backbone.fpn.\1_blocks.\2.0.\3"),
    (re.compile(r"rpn\.head\.conv\.(weight|bias)"), r"rpn.head.conv.0.0.\1"),
]
_OLD_TOWER = re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)")
_OLD_MASK = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)")


def is_torchvision(keys: Mapping[str, object]) -> bool:
    """Whether these are names of a torchvision detector on a ResNet."""
    return "backbone.body.conv1.weight" in keys and any(key.startswith("backbone.fpn.") for key in keys)


def translate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the present names."""
    return {_name(key): value for key, value in state_dict.items()}


def build(content: Content) -> Built:
    """The detector of a file. Blocks in it are those of gcnet: their options are told as for mmdet's."""
    tensors = translate(content.tensors)
    found = architecture_of(tensors, {}, preset="torchvision")
    return detectors.built(found, tensors, content.classes, "torchvision")


ADAPTER = Adapter("torchvision's detectors", is_torchvision, build)


def _name(key: str) -> str:
    if match := _OLD_TOWER.fullmatch(key):  # convolution and ReLU alternated in one Sequential
        return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"
    if match := _OLD_MASK.fullmatch(key):
        return f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
    for pattern, ours in _OLD:
        if pattern.fullmatch(key):
            return pattern.sub(ours, key)
    return key
