"""What a detector is, from the names and shapes of its tensors, and from its own config for what these do not tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from gcnet.checkpoints.detectors import Architecture
from gcnet.checkpoints.mmdet import blocks, facts
from gcnet.errors import CheckpointError


def architecture_of(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    preset: str = "mmdet",
    subsampled: Iterable[str] = (),
) -> Architecture:
    """The architecture of a detector.

    Args:
        state_dict: Tensors under our names (`translate`); they may be on the meta device.
        config: The mmdet config as data (`parse_config`); {} if there is none.
        preset: "mmdet", or "torchvision" for a file of torchvision.
        subsampled: Non-local blocks ("layer3.0.context") that pool keys and values (`plugins.subsampled`).

    Raises:
        CheckpointError: tensors or settings that no detector of `create_detector` has.
    """
    kind = _kind(state_dict)
    detector: dict[str, Any] = {"name": "", "num_classes": _classes(state_dict, kind, preset), "preset": preset}
    trunk, shape = _trunk(state_dict)
    detector |= {"name": f"{kind}_{trunk}_fpn"} | shape | _widths(state_dict, kind)
    told, assumed = facts.of_detector(config, kind) if preset == "mmdet" else ({}, [])
    detector |= told
    if "backbone.body.bn1.running_mean" not in state_dict:
        detector["norm"] = "group"
    elif preset == "torchvision" and "backbone.body.bn1.num_batches_tracked" not in state_dict:
        detector["norm"] = "frozen"
    inserts, of_blocks = blocks.inserts(state_dict, config, set(subsampled))
    deform, of_deform = _deform(state_dict, config)
    lines = list(dict.fromkeys([*assumed, *of_blocks, *of_deform]))
    return Architecture(detector, inserts, deform, lines, facts.is_bgr(config))


def _kind(state: Mapping[str, Tensor]) -> str:
    if any(key.startswith("head.classification_head.") for key in state):
        return "retinanet"
    masks = any("mask_predictor." in key for key in state)
    stages = {key.split(".")[2] for key in state if key.startswith("roi_heads.stages.")}
    if stages and stages != {"0", "1", "2"}:
        raise CheckpointError(
            f"a cascade of the stages {', '.join(sorted(stages))}; gcnet builds those of three stages"
        )
    return {
        (False, False): "fasterrcnn",
        (False, True): "maskrcnn",
        (True, False): "cascade_rcnn",
        (True, True): "cascade_maskrcnn",
    }[bool(stages), masks]


def _classes(state: Mapping[str, Tensor], kind: str, preset: str) -> int:
    """Foreground classes, from the rows of the last layers."""
    if kind == "retinanet":
        anchors = _rows(state, "head.regression_head.bbox_reg.bias") // 4
        return _rows(state, "head.classification_head.cls_logits.bias") // anchors - (preset == "torchvision")
    stage = "stages.0." if kind.startswith("cascade") else ""
    return _rows(state, f"roi_heads.{stage}box_predictor.cls_score.bias") - 1


def _trunk(state: Mapping[str, Tensor]) -> tuple[str, dict[str, int]]:
    """The name of the ResNet, and its widths where they are not those of that name."""
    from torchvision.models import resnet  # here, since torchvision takes seconds to import

    from gcnet.models.detection.backbone import RESNETS

    counts = [len({m[2] for key in state if (m := blocks.UNIT.match(key)) and m[1] == str(k)}) for k in (1, 2, 3, 4)]
    stem = _shape(state, "backbone.body.conv1.weight")
    middle = _shape(state, "backbone.body.layer1.0.conv2.weight")
    unit = resnet.Bottleneck if "backbone.body.layer1.0.conv3.weight" in state else resnet.BasicBlock
    groups = middle[0] // middle[1]
    width = middle[0] // groups
    fitting = {name: known for name, known in RESNETS.items() if known.unit is unit and known.layers == counts}
    if not fitting:
        raise CheckpointError(f"a ResNet with {'+'.join(map(str, counts))} units; gcnet builds {', '.join(RESNETS)}")
    if stem[0] == 64:
        for name, known in fitting.items():
            if (known.groups, known.group_width) == (groups, width):
                return name, {}
    plain = next(name for name, known in fitting.items() if (known.groups > 1) == (groups > 1) or groups == 1)
    widths = {"base_channels": stem[0]}
    if unit is resnet.Bottleneck and (groups, width) != (1, stem[0]):
        widths |= {"groups": groups, "group_width": width}
    return plain, widths


def _widths(state: Mapping[str, Tensor], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    fpn = _shape(state, "backbone.fpn.inner_blocks.0.0.weight")[0]
    found |= {"fpn_channels": fpn} if fpn != 256 else {}
    if "backbone.fpn.inner_blocks.0.1.weight" in state:
        found["head_norm"] = "batch" if "backbone.fpn.inner_blocks.0.1.running_mean" in state else "group"
    if kind == "retinanet":
        return found
    stage = "roi_heads.stages.0." if kind.startswith("cascade") else "roi_heads."
    if f"{stage}box_head.fc6.weight" not in state:
        found["box_head"] = "4conv1fc"
    fc = _shape(state, f"{stage}box_predictor.cls_score.weight")[1]
    found |= {"fc_channels": fc} if fc != 1024 else {}
    if "mask" in kind:
        mask = _shape(state, f"{stage}mask_predictor.mask_fcn_logits.weight")[1]
        found |= {"mask_channels": mask} if mask != 256 else {}
    return found


def _deform(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    rows: dict[int, set[int]] = defaultdict(set)
    for key, value in state.items():
        if (match := blocks.UNIT.match(key)) and key.endswith(".conv2.conv_offset.weight"):
            rows[int(match[1])].add(value.shape[0])
    if not rows:
        return None, []
    sizes = set.union(*rows.values())
    if len(sizes) > 1:
        raise CheckpointError(
            f"deformable convolutions with {sorted(sizes)} offsets in one file; gcnet builds one kind"
        )
    size = sizes.pop()
    modulated, assumed = facts.is_modulated(config, size)
    per_group = 27 if modulated else 18
    if size % per_group:
        raise CheckpointError(f"deformable convolutions with {size} offsets: neither 18 (v1) nor 27 (v2) per group")
    return {
        "stages": [f"c{layer + 1}" for layer in sorted(rows)],
        "modulated": modulated,
        "mask_gate": "sigmoid" if modulated else "identity",
        "deform_groups": size // per_group,
    }, assumed


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"the file has no tensor {key}, from which its architecture would be read")
    return tuple(state[key].shape)


def _rows(state: Mapping[str, Tensor], key: str) -> int:
    return _shape(state, key)[0]
