"""The recommended models: a literal table from a name to the function that builds it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from importlib import import_module

from torch import nn

from gcnet.errors import GcnetError
from gcnet.models.detection.names import DETECTORS

Build = Callable[[int], nn.Module]

# They return a tuple with the auxiliary heads in training mode; timm's inception_v3 does not.
_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def from_torchvision(name: str, num_classes: int) -> nn.Module:
    """A classifier of torchvision by its name there, with random weights."""
    import torchvision  # here, since it takes seconds

    known = [model for model in torchvision.models.list_models(module=torchvision.models) if "quantized" not in model]
    if name not in known:
        raise GcnetError(f"name={name!r} is no model that gcnet or torchvision knows; {_closest(name, known)}")
    if name in _AUXILIARY_HEADS:
        raise GcnetError(f"name={name!r} has auxiliary heads, which gcnet does not train; use 'timm/inception_v3'")
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes)


def from_timm(name: str, num_classes: int) -> nn.Module:
    """A classifier of timm by its name there (without `timm/`), with random weights."""
    import timm  # here, since it takes seconds

    if not timm.is_model(name):
        known = [f"timm/{model}" for model in timm.list_models()]
        raise GcnetError(f"name={'timm/' + name!r} is no model that timm knows; {_closest('timm/' + name, known)}")
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def from_address(address: str, num_classes: int) -> nn.Module:
    """A model of a room above this one, which must not be imported here: "package.module:Class"."""
    module, _, kind = address.partition(":")
    return getattr(import_module(module), kind)(num_classes)


def _closest(name: str, known: list[str]) -> str:
    names = difflib.get_close_matches(name, [*list_models(), *known], n=4) or sorted(CATALOGUE)[:4]
    return f"did you mean one of {', '.join(dict.fromkeys(names))}? (models of timm are written 'timm/NAME')"


CATALOGUE: dict[str, Build] = {
    "scenes": partial(from_address, "gcnet.scenes.net:SceneNet"),
    "resnet18": partial(from_torchvision, "resnet18"),
    "resnet34": partial(from_torchvision, "resnet34"),
    "resnet50": partial(from_torchvision, "resnet50"),
    "resnet101": partial(from_torchvision, "resnet101"),
    "resnet152": partial(from_torchvision, "resnet152"),
    "resnext50_32x4d": partial(from_torchvision, "resnext50_32x4d"),
    "resnext101_32x8d": partial(from_torchvision, "resnext101_32x8d"),
    "wide_resnet50_2": partial(from_torchvision, "wide_resnet50_2"),
    "regnet_y_400mf": partial(from_torchvision, "regnet_y_400mf"),
    "regnet_x_400mf": partial(from_torchvision, "regnet_x_400mf"),
    "convnext_tiny": partial(from_torchvision, "convnext_tiny"),
    "efficientnet_b0": partial(from_torchvision, "efficientnet_b0"),
    "mobilenet_v3_small": partial(from_torchvision, "mobilenet_v3_small"),
    "mobilenet_v3_large": partial(from_torchvision, "mobilenet_v3_large"),
    "timm/resnet18": partial(from_timm, "resnet18"),
    "timm/resnet26d": partial(from_timm, "resnet26d"),
    "timm/resnet26t": partial(from_timm, "resnet26t"),
    "timm/resnet50": partial(from_timm, "resnet50"),
    "timm/resnet50d": partial(from_timm, "resnet50d"),
    "timm/resnext50_32x4d": partial(from_timm, "resnext50_32x4d"),
    "timm/seresnet50": partial(from_timm, "seresnet50"),
    "timm/gcresnext26ts": partial(from_timm, "gcresnext26ts"),
    "timm/gcresnet33ts": partial(from_timm, "gcresnet33ts"),
    "timm/gcresnet50t": partial(from_timm, "gcresnet50t"),
    "timm/gcresnext50ts": partial(from_timm, "gcresnext50ts"),
    "timm/regnety_004": partial(from_timm, "regnety_004"),
    "timm/convnext_tiny": partial(from_timm, "convnext_tiny"),
    "timm/efficientnet_b0": partial(from_timm, "efficientnet_b0"),
    "timm/efficientnet_lite0": partial(from_timm, "efficientnet_lite0"),
    "timm/tf_efficientnet_lite0": partial(from_timm, "tf_efficientnet_lite0"),
    "timm/tf_efficientnet_lite2": partial(from_timm, "tf_efficientnet_lite2"),
    "timm/mobilenetv3_large_100": partial(from_timm, "mobilenetv3_large_100"),
}


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
    """The plain model of that name with random weights, from the table, else from torchvision or timm."""
    if name in CATALOGUE:
        return CATALOGUE[name](num_classes)
    if name.startswith("timm/"):
        return from_timm(name.removeprefix("timm/"), num_classes)
    return from_torchvision(name, num_classes)
