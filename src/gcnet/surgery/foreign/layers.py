"""What the converters share: reading the layers of a foreign block, and moving their values into ours."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.blocks import ContextBlock, NonLocal
from gcnet.surgery.labels import label
from gcnet.surgery.probe import CONVS

ACTIVATIONS: dict[str, str | None] = {
    label(nn.ReLU): "relu",
    label(nn.SiLU): "silu",
    "timm.layers.activations.Swish": "silu",
    "timm.layers.activations_me.SwishMe": "silu",
    label(nn.Hardswish): "hard_swish",
    "timm.layers.activations.HardSwish": "hard_swish",
    "timm.layers.activations_me.HardSwishMe": "hard_swish",
    label(nn.GELU): "gelu",
    "timm.layers.activations.GELU": "gelu",
    label(nn.Identity): None,
}
GATES: dict[str, str] = {
    label(nn.Sigmoid): "sigmoid",
    "timm.layers.activations.Sigmoid": "sigmoid",
    label(nn.Hardsigmoid): "hard_sigmoid",
    "timm.layers.activations.HardSigmoid": "hard_sigmoid",
    "timm.layers.activations_me.HardSigmoidMe": "hard_sigmoid",
}
TIMM_NORM = "timm.layers.norm.LayerNorm2d"
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CannotConvertError(Exception):
    """Our blocks cannot say exactly what this foreign block computes; the message says why."""


def pointwise(conv: Any) -> None:
    """Check that a layer is a plain 1x1 convolution."""
    if type(conv) not in CONVS and not _is_wrapped(conv):
        raise CannotConvertError(f"one of its layers is a {type(conv).__name__}, not a plain convolution")
    plain = conv.groups == 1 and {*conv.kernel_size, *conv.stride} == {1} and set(conv.padding) == {0}
    if not plain:
        raise CannotConvertError(f"one of its layers is no plain 1x1 convolution: {conv}")


def _is_wrapped(conv: nn.Module) -> bool:
    """mmcv's own Conv2d and Conv3d: PyTorch's, with a detour for empty batches."""
    return type(conv).__module__ == "mmcv.cnn.bricks.wrappers" and type(conv).__bases__[0] in CONVS


def gate(module: nn.Module) -> str:
    """Our name of a gate."""
    if label(type(module)) not in GATES:
        raise CannotConvertError(f"its gate is a {type(module).__name__}")
    return GATES[label(type(module))]


def bottleneck(reduce: Any, norm: nn.Module, activation: nn.Module, expand: Any) -> dict[str, Any]:
    """The options of `ContextBlock` that say the same as these four layers."""
    pointwise(reduce)
    pointwise(expand)
    hidden = reduce.out_channels
    timm_norm = label(type(norm)) == TIMM_NORM
    if type(norm) not in (nn.Identity, nn.LayerNorm) and not timm_norm:
        raise CannotConvertError(f"the norm of its bottleneck is a {type(norm).__name__}")
    if isinstance(norm, nn.LayerNorm):
        shapes = ((hidden,),) if timm_norm else ((hidden, 1, 1),)
        if tuple(norm.normalized_shape) not in shapes or norm.weight is None or norm.bias is None:
            raise CannotConvertError(f"the norm of its bottleneck is {norm}")
    if label(type(activation)) not in ACTIVATIONS or getattr(activation, "approximate", "none") != "none":
        raise CannotConvertError(f"the activation of its bottleneck is {activation}")
    if (reduce.bias is None) != (expand.bias is None):
        raise CannotConvertError("one layer of its bottleneck has a bias and the other has none")
    return {
        "hidden": hidden,
        "norm": type(norm) is not nn.Identity,
        "activation": ACTIVATIONS[label(type(activation))],
        "bias": reduce.bias is not None,
    }


def reduction(channels: int, hidden: int) -> int:
    """The r with channels // r == hidden."""
    found = channels // hidden
    if found < 1 or channels // found != hidden:
        raise CannotConvertError(f"its {hidden} inner channels are no channels // reduction of its {channels}")
    return found


def batch_norm(norm: nn.Module) -> None:
    """Check that a norm is a batch norm with gain, shift and running statistics."""
    if type(norm) not in _BATCH_NORMS:
        raise CannotConvertError(f"the norm behind its last layer is a {type(norm).__name__}")
    if norm.weight is None or norm.running_mean is None:
        raise CannotConvertError(f"the norm behind its last layer is {norm}")


def filled(block: ContextBlock | NonLocal, theirs: nn.Module, layers: Mapping[str, str], **tensors: str) -> nn.Module:
    """Our block with the values of theirs.

    Args:
        block: Ours, on the meta device.
        theirs: The foreign block; it is not altered and shares no tensor with the result.
        layers: Names of our layers and of theirs; all parameters and buffers of a layer go along.
        tensors: Single tensors, ours="theirs".
    """
    names = {f"{a}.{key}": f"{b}.{key}" for a, b in layers.items() for key in block.get_submodule(a).state_dict()}
    names |= tensors
    values: dict[str, Tensor] = theirs.state_dict(keep_vars=True)
    own = block.state_dict(keep_vars=True)
    for name, value in own.items():
        if names[name] not in values or values[names[name]].numel() != value.numel():
            raise CannotConvertError(f"ours needs a {names[name]} of {value.numel()} values, which it does not have")
    left = values.keys() - names.values()
    state = {name: _like(values[names[name]], value) for name, value in own.items()}
    norm = getattr(block, "norm", None)
    if isinstance(norm, nn.BatchNorm1d):  # a constant in front of a batch norm only moves its running mean
        bias = f"{layers['out']}.bias"
        if bias in left:
            left.remove(bias)
            state["norm.running_mean"] -= values[bias].detach()
    if left:
        raise CannotConvertError(f"it holds tensors that ours has no place for: {', '.join(sorted(left))}")
    block.load_state_dict(state, assign=True)
    block.train(theirs.training)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(values[names[name]].requires_grad)
    for a, b in layers.items():  # the constants of a norm; one that was frozen in a training model stays frozen
        for setting in ("eps", "momentum", "training"):
            if hasattr(block.get_submodule(a), setting):
                setattr(block.get_submodule(a), setting, getattr(theirs.get_submodule(b), setting))
    return block


def _like(value: Tensor, shape_of: Tensor) -> Tensor:
    return value.detach().reshape(shape_of.shape).clone(memory_format=torch.contiguous_format)
