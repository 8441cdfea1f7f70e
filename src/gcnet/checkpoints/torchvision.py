"""Files of torchvision's detectors: its names, those before version 0.14 too, in ours (which are its present ones)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gcnet.checkpoints import detectors
from gcnet.checkpoints.content import Adapter, Built, Content
from gcnet.checkpoints.mmdet.architecture import architecture_of

_LEAF = r"\.(weight|bias)"
# Old names -> ours; a number in the old ones counted convolutions and ReLUs, or from 1.
_OLD: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)" + _LEAF, r"\1.0.\2"),
    (r"rpn\.head\.conv" + _LEAF, r"rpn.head.conv.0.0.\1"),
    (r"(head\.(?:classification|regression)_head\.conv)\.(\d+)" + _LEAF, lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}"),
    (r"(roi_heads\.mask_head)\.mask_fcn(\d+)" + _LEAF, lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}"),
]


def is_torchvision(keys: Mapping[str, object]) -> bool:
    """Whether these are names of a torchvision detector on a ResNet."""
    return "backbone.body.conv1.weight" in keys and any(key.startswith("backbone.fpn.") for key in keys)


def build(content: Content) -> Built:
    """The detector of a file. Blocks in it are those of gcnet: their options are told as for mmdet's."""
    tensors = {_name(key): value for key, value in content.tensors.items()}
    found = architecture_of(tensors, {}, preset="torchvision")
    return detectors.built(found, tensors, content.classes, "torchvision")


ADAPTER = Adapter("torchvision's detectors", is_torchvision, build)


def _name(key: str) -> str:
    for pattern, ours in _OLD:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    return key
