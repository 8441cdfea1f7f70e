"""Classifiers of torchvision and timm: the name whose model has exactly the tensors of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import timm
import torch
import torchvision
from torch import Tensor, nn

from gcnet.errors import CheckpointError, some
from gcnet.models import create_model, list_models
from gcnet.models.weights import head_keys

# What the parts of these networks are called.
_PARTS = {
    "blocks",
    "conv1",
    "conv_proj",
    "conv_stem",
    "encoder",
    "features",
    "layer1",
    "stages",
    "stem",
    "trunk_output",
}
_FAMILIES = ("*gcres*", "resnet*", "resnext*", "seresnet*", "seresnext*")


def recognise(state: Mapping[str, Tensor]) -> tuple[nn.Module, str, list[str]]:
    """The model of `create_model` with random weights and as many classes, the source, what is assumed.

    Raises:
        CheckpointError: no model of the list has these tensors; the one that comes closest is named.
    """
    closest, most = None, 0
    for name in _candidates(state):
        try:
            with torch.device("meta"):
                model = create_model(name, num_classes=1000)
        except (NotImplementedError, RuntimeError):  # some compute their widths with tensors
            model = create_model(name, num_classes=1000)
        own = model.state_dict()
        head = head_keys(model)
        wanted = {key for key in own if not key.endswith("num_batches_tracked")}
        common = sum(key in state and own[key].shape == state[key].shape for key in own)
        closest, most = (name, common) if common > most else (closest, most)
        rows = {state[key].shape[0] for key in head if key in state and state[key].ndim}
        bodies = all(own[key].shape == state[key].shape for key in own if key in state and key not in head)
        if wanted <= state.keys() <= own.keys() and bodies and len(rows) == 1:
            library = "timm" if name.startswith("timm/") else "torchvision"
            assumed = [f"model: {name} (what has no tensors, such as activations and strides, is that model's)"]
            return create_model(name, num_classes=rows.pop()), library, assumed
    near = "" if closest is None else f"; {most} of them are those of {closest}"
    raise CheckpointError(
        f"its {len(state)} tensors are those of no model that gcnet recognises: mmdet's and torchvision's detectors, "
        f"classifiers of torchvision, ResNets of timm{near}. They begin with {some(state, 4)}. For another model: "
        "load_checkpoint(path, architecture=model)"
    )


def _candidates(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Names worth a try, the likely ones first; which kind of network it is shows in the names of the tensors."""
    names = [name for name in list_models() if name != "scenes" and "rcnn" not in name and "retinanet" not in name]
    names += [name for name in torchvision.models.list_models(module=torchvision.models) if "quantized" not in name]
    names = [name for name in names if name not in ("googlenet", "inception_v3")]
    names += [f"timm/{name}" for family in _FAMILIES for name in timm.list_models(family)]
    if not _PARTS & {key.partition(".")[0] for key in state}:
        return
    resnet = "layer1.0.conv1.weight" in state
    byob = any(key.startswith("stages.0.0.conv1_1x1.") for key in state)
    for name in dict.fromkeys(names):
        is_byob = "gcres" in name or name.endswith("ts")
        is_resnet = "res" in name and not is_byob
        if (is_resnet, is_byob) == (resnet, byob):
            yield name
