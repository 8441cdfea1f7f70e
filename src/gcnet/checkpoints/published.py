"""Files of other programs: recognised, built, filled, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from gcnet.checkpoints import classifiers
from gcnet.checkpoints import torchvision as torchvision_detectors
from gcnet.checkpoints.mmdet import names as mmdet
from gcnet.checkpoints.mmdet.architecture import Architecture, architecture_of
from gcnet.checkpoints.mmdet.config_text import parse_config
from gcnet.checkpoints.mmdet.facts import Facts
from gcnet.errors import CheckpointError
from gcnet.files.tensors import plain_names, state_dict
from gcnet.models.detection import create_detector
from gcnet.models.weights import counters, misfits
from gcnet.rewrites import deform, insert


@dataclass(frozen=True)
class Content:
    """What a file of another program holds: its tensors, its config as data, the names of its classes."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    classes: list[str] | None
    version: str | None


@dataclass(frozen=True)
class Published:
    """A model built for a file and filled from it."""

    model: nn.Module
    assumed: list[str]
    source: str
    classes: list[str] | None


def content_of(path: Path, stored: Any) -> Content:
    """The tensors and the notes in what `torch.save` stored.

    Raises:
        CheckpointError: there is no table of named tensors in it.
    """
    state = plain_names(state_dict(path, stored))
    meta = stored.get("meta") if isinstance(stored, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    text = meta.get("cfg", meta.get("config"))
    data = meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else {}
    version = "3" if "mmengine_version" in meta else meta.get("mmdet_version")
    config = parse_config(text)
    classes = _names(data.get("classes", data.get("CLASSES", meta.get("CLASSES")))) or Facts(config, []).classes()
    return Content(state, config, classes, version if isinstance(version, str) else None)


def build_published(path: Path, content: Content) -> Published:
    """The model of a file, with its tensors in it.

    Raises:
        CheckpointError: it is of no kind that gcnet knows, or its tensors do not fit; all that do not are counted.
    """
    state = content.tensors
    try:
        if mmdet.is_mmdet(state):
            return _from_mmdet(content)
        if torchvision_detectors.is_torchvision(state):
            tensors = torchvision_detectors.translate(state)
            return _detector(architecture_of(tensors, {}, preset="torchvision"), tensors, content, "torchvision")
        return _classifier(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _from_mmdet(content: Content) -> Published:
    tensors = mmdet.translate(content.tensors, content.config)
    subsampled = mmdet.subsampled_blocks(content.tensors, content.config)
    found = architecture_of(tensors, content.config, subsampled=subsampled)
    source = f"mmdet {content.version or '2 or 3'}"
    if mmdet.is_background_first(content.tensors):
        source = f"mmdet {content.version or '1'} (background first, as in the GCNet repository of 2019)"
        found.assumed.append("boxes, anchors and RoIAlign as in mmdet 2: the rounding of mmdet 1 is not reproduced")
    return _detector(found, tensors, content, source)


def build(found: Architecture) -> nn.Module:
    """The model of an architecture, on the default device, with random weights."""
    try:
        model: nn.Module = create_detector(**found.detector)
        if found.deform is not None:
            model = deform(model, **found.deform)
        for call in found.inserts:
            model = insert(model, **call)
    except ValueError as error:
        raise CheckpointError(f"its architecture cannot be built ({error})") from None
    return model


def _detector(found: Architecture, tensors: dict[str, Tensor], content: Content, source: str) -> Published:
    model = build(found)
    stem = "backbone.body.conv1.weight"
    if found.is_bgr:  # our images are RGB
        tensors = tensors | {stem: tensors[stem].flip(1)}
    fill(model, tensors)
    classes = content.classes
    number = found.detector["num_classes"]
    if classes is not None and len(classes) != number:
        found.assumed.append(f"no class names: the file has {len(classes)} for {number} classes")
        classes = None
    elif classes is None and number in (80, 90):
        classes = _coco(number)
        found.assumed.append(f"class names: those of COCO's {number} classes")
    elif classes is None:
        found.assumed.append("no class names: the file has none")
    return Published(model, found.assumed, source, classes)


def _classifier(content: Content) -> Published:
    model, source, assumed = classifiers.recognise(content.tensors)
    fill(model, content.tensors)
    return Published(model, assumed, source, content.classes)


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors into the model; the counters of batch norms may be absent.

    Raises:
        CheckpointError: naming missing, unused and wrongly shaped tensors together.
    """
    own = model.state_dict()
    report = misfits(own, tensors, optional=counters(own))
    if report:
        raise CheckpointError(f"its tensors do not fit the architecture that they tell: {report}")
    model.load_state_dict(dict(tensors), strict=False, assign=True)


def _names(value: Any) -> list[str] | None:
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return list(value)
    return None


def _coco(number: int) -> list[str]:
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    return [name for name in names if name != "N/A"] if number == 80 else list(names)
