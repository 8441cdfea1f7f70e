"""The recommended names, those of detectors, and classifiers by their names in torchvision and timm."""

from __future__ import annotations

import difflib
import re

from torch import nn

from gcnet.errors import GcnetError

CATALOGUE = (
    "scenes",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "regnet_y_400mf", "regnet_x_400mf", "convnext_tiny", "efficientnet_b0", "mobilenet_v3_small",
    "mobilenet_v3_large",
    "timm/resnet18", "timm/resnet26d", "timm/resnet26t", "timm/resnet50", "timm/resnet50d", "timm/resnext50_32x4d",
    "timm/seresnet50", "timm/gcresnext26ts", "timm/gcresnet33ts", "timm/gcresnet50t", "timm/gcresnext50ts",
    "timm/regnety_004", "timm/convnext_tiny", "timm/efficientnet_b0", "timm/efficientnet_lite0",
    "timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite2", "timm/mobilenetv3_large_100",
)  # fmt: skip

_KINDS = ("fasterrcnn", "maskrcnn", "cascade_rcnn", "cascade_maskrcnn", "retinanet")
DETECTOR_NAME = rf"({'|'.join(_KINDS)})_(.+)_fpn"
_SHOWN = ("resnet50", "resnet101", "resnext101_32x4d", "resnext101_64x4d")
DETECTORS: tuple[str, ...] = tuple(f"{kind}_{trunk}_fpn" for kind in _KINDS for trunk in _SHOWN)

# They return a tuple with the auxiliary heads in training mode; timm's inception_v3 does not.
_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def _closest(name: str, known: list[str]) -> str:
    names = difflib.get_close_matches(name, [*list_models(), *known], n=4) or sorted(CATALOGUE)[:4]
    return f"did you mean one of {', '.join(dict.fromkeys(names))}? (models of timm are written 'timm/NAME')"


def list_models() -> list[str]:
    """The recommended names, classifiers first, then detectors.

    Every other classifier of torchvision, `timm/NAME` for every model of timm, and detectors on other backbones
    (`maskrcnn_resnet18_fpn`, `retinanet_timm/resnet26d_fpn`) work too.

    Example:
        >>> import gcnet
        >>> "timm/resnet26d" in gcnet.list_models(), "maskrcnn_resnet50_fpn" in gcnet.list_models()
        (True, True)
    """
    return [*CATALOGUE, *DETECTORS]


def build(name: str, num_classes: int) -> nn.Module:
    """The classifier of timm (`timm/NAME`) or torchvision with random weights."""
    if name.startswith("timm/"):
        import timm  # here and below, since they take seconds

        if not timm.is_model(name.removeprefix("timm/")):
            known = [f"timm/{model}" for model in timm.list_models()]
            raise GcnetError(f"name={name!r} is no model that timm knows; {_closest(name, known)}")
        return timm.create_model(name.removeprefix("timm/"), pretrained=False, num_classes=num_classes)
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise GcnetError(f"name={name!r} is no model that gcnet or torchvision knows; {_closest(name, known)}")
    if name in _AUXILIARY_HEADS:
        raise GcnetError(f"name={name!r} has auxiliary heads, which gcnet does not train; use 'timm/inception_v3'")
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


def is_detector(name: str) -> bool:
    """Whether a name is one that `create_detector` takes, whatever its backbone.

    Example:
        >>> is_detector("maskrcnn_timm/resnet26d_fpn"), is_detector("resnet50")
        (True, False)
    """
    return re.fullmatch(DETECTOR_NAME, name) is not None


def parsed(name: str) -> tuple[str, str]:
    """Kind and backbone in a detector's name.

    Raises:
        GcnetError: it is none.
    """
    match = re.fullmatch(DETECTOR_NAME, name)
    if match is None:
        raise GcnetError(
            f"name={name!r} is no detector; names are KIND_BACKBONE_fpn with a kind of {', '.join(_KINDS)}, for "
            "example maskrcnn_resnet50_fpn or retinanet_timm/resnet26d_fpn"
        )
    return match[1], match[2]
