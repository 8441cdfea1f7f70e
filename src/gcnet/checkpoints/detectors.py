"""How a detector on record is built and filled, whichever program its file is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gcnet.checkpoints.content import Built
from gcnet.errors import CheckpointError
from gcnet.models.weights import fill_all
from gcnet.rewrites import deform, insert


@dataclass(frozen=True)
class Architecture:
    """How to build the model that a file fills.

    Attributes:
        detector: Arguments of `create_detector`.
        inserts: Arguments of `gcnet.insert`, one call each.
        deform: Arguments of `gcnet.deform`; None without deformable convolutions.
        assumed: What neither the tensors nor the config told, in words.
        is_bgr: The network was trained on BGR images.
    """

    detector: dict[str, Any]
    inserts: list[dict[str, Any]] = field(default_factory=list)
    deform: dict[str, Any] | None = None
    assumed: list[str] = field(default_factory=list)
    is_bgr: bool = False


def build(found: Architecture) -> nn.Module:
    """The model of an architecture, on the default device, with random weights."""
    from gcnet.models.detection.create import create_detector  # here, since it imports torchvision

    try:
        model: nn.Module = create_detector(**found.detector)
        if found.deform is not None:
            model = deform(model, **found.deform)
        for call in found.inserts:
            model = insert(model, **call)
    except ValueError as error:
        raise CheckpointError(f"its architecture cannot be built ({error})") from None
    return model


def built(found: Architecture, tensors: dict[str, Tensor], classes: list[str] | None, source: str) -> Built:
    """The model of an architecture with the tensors, which have our names, in it; `classes` as the file has them."""
    model = build(found)
    if found.is_bgr:  # our images are RGB
        stem = "backbone.body.conv1.weight"
        tensors = tensors | {stem: tensors[stem].flip(1)}
    fill_all(model, tensors)
    names, assumed = _class_names(classes, found.detector["num_classes"])
    return Built(model, source, names, [*found.assumed, *assumed])


def _class_names(classes: list[str] | None, number: int) -> tuple[list[str] | None, list[str]]:
    """The names of so many classes, if they are known, and what is assumed for them."""
    if classes is not None and len(classes) == number:
        return classes, []
    if classes is not None:
        return None, [f"no class names: the file has {len(classes)} for {number} classes"]
    if number not in (80, 90):
        return None, ["no class names: the file has none"]
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    coco = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    names = [name for name in coco if name != "N/A"] if number == 80 else list(coco)
    return names, [f"class names: those of COCO's {number} classes"]
