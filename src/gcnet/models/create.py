"""`create_model`: a classifier by name, its weights, its blocks, and the record from which it can be made again."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.blocks.catalogue import CATALOGUE as BLOCKS
from gcnet.models.catalogue import build
from gcnet.models.preprocessing import default_preprocessing
from gcnet.models.weights import has_package, load_imagenet, load_weights
from gcnet.rewrites import insert, record


def create_model(
    name: str,
    *,
    num_classes: int,
    weights: str | Path | None = None,
    block: str | None = None,
    stages: Sequence[str] | None = None,
    **options: Any,
) -> nn.Module:
    """A classifier of torchvision (`"resnet50"`), of timm (`"timm/resnet26d"`) or `"scenes"`, with context blocks.

    Args:
        name: one of `gcnet.list_models()`, another classifier of torchvision, or `timm/` and a name that timm knows.
        num_classes: outputs of the head (for `"scenes"`: kinds of item).
        weights: None for a random start; `"imagenet"`; or a file: safetensors (a gcnet checkpoint too) or a state_dict
            of torch.save. A head of another size is left out, and a line in the log says so.
        block: a name of `gcnet.list_blocks()`, put in by `gcnet.insert`; None for the plain model.
        stages: where, such as `("c3", "c4", "c5")`; None for the block's own defaults.
        **options: `at`, `where`, `position` of `gcnet.insert`, and the options of the block.

    Raises:
        ValueError: an unknown name, a wrong option, weights that do not fit (`gcnet.models.WeightsError`).

    Example:
        >>> import gcnet
        >>> model = gcnet.create_model("resnet18", num_classes=10, block="gc", stages=["c4"], reduction=8)
        >>> len(gcnet.inserted(model))
        2
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes={num_classes!r}: allowed are whole numbers from 1")
    if block is None and (stages is not None or options):
        given = [*(["stages"] if stages is not None else []), *options]
        raise TypeError(f"{', '.join(given)} given without block=...: these say where and how to put a block")
    model = build(name, num_classes)
    preprocessing = default_preprocessing(name, model)
    record.set_architecture(model, name, num_classes)
    if weights == "imagenet":
        load_imagenet(model, name)
        if preprocessing and has_package(name):
            preprocessing |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    if preprocessing:
        record.set_preprocessing(model, preprocessing)
    if block is not None:
        if name == "scenes":
            options = _scene_defaults(block, options)
        example = example_input(model) if options.get("at") is not None else None
        model = insert(model, block, stages=stages, example=example, **options)
    if weights is not None and weights != "imagenet":
        load_weights(model, weights)
    return model


def example_input(model: nn.Module) -> torch.Tensor:
    """One image of zeros of the size that a model of `create_model` expects, on its device."""
    parameter = next(model.parameters())
    preprocessing = record.preprocessing(model)
    shape = (1, 3, *preprocessing["size"]) if preprocessing else (1, 1, 48, 48)
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


def _scene_defaults(block: str, options: dict[str, Any]) -> dict[str, Any]:
    """The two spots of the scenes model, and a reduction that leaves 32 of its 64 channels."""
    defaults: dict[str, Any] = {"at": "spots.*"}
    if block in BLOCKS and "reduction" in inspect.signature(BLOCKS[block].build).parameters:
        defaults["reduction"] = 2
    return defaults | options
