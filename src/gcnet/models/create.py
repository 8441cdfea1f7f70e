"""`create_model`: a classifier or detector by name, its weights, its blocks, and the record to make it again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gcnet.blocks.catalogue import CATALOGUE as BLOCKS
from gcnet.errors import GcnetTypeError, whole
from gcnet.models.catalogue import build
from gcnet.models.detection.names import backbone_name, is_detector
from gcnet.models.preprocessing import default_preprocessing
from gcnet.models.weights import has_package, load_imagenet, load_imagenet_backbone, load_weights
from gcnet.rewrites import deform as make_deformable
from gcnet.rewrites import insert
from gcnet.surgery import record
from gcnet.surgery.probe import example_input

_TASKS = {"scenes": "scenes"}  # the others' is "classify"; detectors note their own


def create_model(
    name: str,
    *,
    num_classes: int,
    weights: str | Path | None = None,
    block: str | None = None,
    stages: Sequence[str] | None = None,
    deform: Sequence[str] | None = None,
    **options: Any,
) -> nn.Module:
    """A classifier of torchvision (`"resnet50"`), of timm (`"timm/resnet26d"`) or `"scenes"`, with context blocks.

    Or a detector (`"maskrcnn_resnet50_fpn"`), see `gcnet.models.create_detector`.

    Args:
        name: one of `gcnet.list_models()`, another classifier of torchvision, or `timm/` and a name that timm knows.
        num_classes: outputs of the head (for `"scenes"`: kinds of item; for detectors without the background).
        weights: None for a random start; `"imagenet"` (of a detector: its backbone); or a file: safetensors (a gcnet
            checkpoint too) or a state_dict of torch.save. A head of another size is left out, and a line in the log
            says so.
        block: a name of `gcnet.list_blocks()`, put in by `gcnet.insert`; None for the plain model.
        stages: where, such as `("c3", "c4", "c5")`; None for the block's own defaults.
        deform: stages of a ResNet whose 3x3 convolutions become deformable, by `gcnet.deform`; None for none.
        **options: `at`, `where`, `position` of `gcnet.insert`, and the options of the block; of a detector also those
            of `create_detector`.

    Raises:
        ValueError: an unknown name, a wrong option, weights that do not fit (`gcnet.models.WeightsError`).

    Example:
        >>> import gcnet
        >>> model = gcnet.create_model("resnet18", num_classes=10, block="gc", stages=["c4"], reduction=8)
        >>> len(gcnet.inserted(model))
        2
    """
    whole("num_classes", num_classes)
    own = {key: options.pop(key) for key in _detector_options() & options.keys()} if is_detector(name) else {}
    if block is None and (stages is not None or options):
        given = [*(["stages"] if stages is not None else []), *options]
        raise GcnetTypeError(f"{', '.join(given)} given without block=...: these say where and how to put a block")
    model = plain_model(name, num_classes, own)
    if weights == "imagenet":
        _fill_from_imagenet(model, name)
    if deform is not None:
        model = make_deformable(model, stages=deform)
    if block is not None:
        if name == "scenes":
            options = _scene_defaults(block, options)
        example = example_input(model) if options.get("at") is not None else None
        model = insert(model, block, stages=stages, example=example, **options)
    if weights is not None and weights != "imagenet":
        load_weights(model, weights)
    return model


def plain_model(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """The model of a record of architecture: random weights, no block, and nothing else that an option could ask for.

    Raises:
        ValueError: an unknown name, or an option that is none of this name's own.
    """
    whole("num_classes", num_classes)
    if is_detector(name):
        from gcnet.models.detection.create import create_detector  # here, since it imports torchvision

        return create_detector(name, num_classes=num_classes, **options)
    if options:
        raise GcnetTypeError(f"{name!r} has no options, {', '.join(options)} given")
    model = build(name, num_classes)
    record.set_architecture(model, _TASKS.get(name, "classify"), name, num_classes)
    preprocessing = default_preprocessing(name, model)
    if preprocessing:
        record.set_preprocessing(model, preprocessing)
    return model


def _detector_options() -> set[str]:
    from gcnet.models.detection.create import create_detector

    return set(inspect.signature(create_detector).parameters) - {"name", "num_classes"}


def _fill_from_imagenet(model: nn.Module, name: str) -> None:
    if is_detector(name):
        load_imagenet_backbone(model, backbone_name(name))
        return
    load_imagenet(model, name)
    preprocessing = record.preprocessing(model)
    if preprocessing and has_package(name):
        record.set_preprocessing(model, preprocessing | {"mean": [0.5] * 3, "std": [0.5] * 3})


def _scene_defaults(block: str, options: dict[str, Any]) -> dict[str, Any]:
    """The two spots of the scenes model, and a reduction that leaves 32 of its 64 channels."""
    defaults: dict[str, Any] = {"at": "spots.*"}
    if block in BLOCKS and "reduction" in inspect.signature(BLOCKS[block].build).parameters:
        defaults["reduction"] = 2
    return defaults | options
