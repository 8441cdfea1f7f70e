"""`create_model`: a classifier or detector by name, its weights, its blocks, and the record to make it again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from gcnet.blocks.catalogue import CATALOGUE as BLOCKS
from gcnet.errors import GcnetTypeError, whole
from gcnet.lazy import loaded
from gcnet.models.catalogue import DETECTOR_NAME, build
from gcnet.models.preprocessing import default_preprocessing
from gcnet.models.weights import load_imagenet, load_imagenet_backbone, load_weights
from gcnet.rewrites import deform as make_deformable
from gcnet.rewrites import insert
from gcnet.surgery import record
from gcnet.surgery.probe import example_input


class Family(NamedTuple):
    """Networks that are made alike.

    Attributes:
        names: A pattern of the whole name.
        address: "module:function", imported when it is asked for: name, num_classes and the family's own options
            -> the plain model with its record.
        fill: Puts ImageNet weights into a model of that name.
        classes: Of the data that they are published for.
        blocks: Options of `insert`, where nothing else is asked for; those of a block as far as it has them.
    """

    names: str
    address: str
    fill: Callable[[nn.Module, str], None]
    classes: int
    blocks: Mapping[str, Any] = {}

    def builder(self) -> Callable[..., nn.Module]:
        return loaded(self.address)

    def options(self) -> set[str]:
        """The names of the family's own options."""
        return set(inspect.signature(self.builder()).parameters) - {"name", "num_classes"}


FAMILIES = (  # the first that has the name
    Family("scenes", "gcnet.scenes.net:create_scene_net", load_imagenet, 6, {"at": "spots.*", "reduction": 2}),
    Family(DETECTOR_NAME, "gcnet.models.detection.create:create_detector", load_imagenet_backbone, 80),
    Family("(?s).*", "gcnet.models.create:create_classifier", load_imagenet, 1000),
)


def family(name: str) -> Family:
    """The family that a name of `create_model` belongs to."""
    return next(one for one in FAMILIES if re.fullmatch(one.names, name))


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
    kind = family(name)
    own = {key: options.pop(key) for key in kind.options() & options.keys()}
    if block is None and (stages is not None or options):
        given = [*(["stages"] if stages is not None else []), *options]
        raise GcnetTypeError(f"{', '.join(given)} given without block=...: these say where and how to put a block")
    model = plain_model(name, num_classes, own)
    if weights == "imagenet":
        kind.fill(model, name)
    if deform is not None:
        model = make_deformable(model, stages=deform)
    if block is not None:
        of_block = inspect.signature(BLOCKS[block].build).parameters if block in BLOCKS else ()
        options = {key: value for key, value in kind.blocks.items() if key == "at" or key in of_block} | options
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
    kind = family(name)
    unknown = [key for key in options if key not in kind.options()]
    if unknown:
        raise GcnetTypeError(f"{name!r} has no options {', '.join(unknown)}")
    return kind.builder()(name, num_classes=num_classes, **options)


def sketch(name: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """`plain_model` without memory for its tensors, where it can be."""
    try:
        with torch.device("meta"):
            return plain_model(name, num_classes, options)
    except (NotImplementedError, RuntimeError):  # some compute their widths with tensors
        return plain_model(name, num_classes, options)


def create_classifier(name: str, *, num_classes: int) -> nn.Module:
    """The plain classifier of torchvision or timm, with its record."""
    model = build(name, num_classes)
    record.set_architecture(model, "classify", name, num_classes)
    record.set_preprocessing(model, default_preprocessing(name, model))
    return model
