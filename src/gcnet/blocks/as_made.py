"""Whether a layer is what the constructor of a block made, so that its weights say all that it does.

A block may then hand the weights to an op, which saves calls and passes over the map. A layer that carries a hook, a
parametrisation or a forward of its own, that was wrapped, exchanged or quantised, is called as it is.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook  # PyTorch asks this in each call; it has no public name

from gcnet import ops
from gcnet.ops.attention_pooling import pool_by_logits, positions

_TENSORS = (nn.Parameter, Tensor)


def as_made(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether calling the layer runs the forward of exactly this class and nothing else.

    It is asked in every forward pass of a block, so it reads the dictionaries of the layer: an attribute of an
    nn.Module that is a layer or a parameter takes a call in Python, the whole question half of that time.
    """
    if type(layer) is not kind:  # a parametrisation makes a class of its own
        return False
    own = layer.__dict__
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or _has_any_global_hook()
    )


def tensors_of(layer: Any, kind: type[nn.Module]) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a layer that is as made; None if it has to be called."""
    if not as_made(layer, kind):
        return None
    parameters = layer.__dict__["_parameters"]
    weight = parameters.get("weight")
    if weight is None or (type(weight) not in _TENSORS and hasattr(weight, "__tensor_flatten__")):
        return None  # quantised or sharded: made of other tensors, it computes in its own way
    return weight, parameters.get("bias")


def pool(key: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """(x to go on with, the pooled vectors (B, C)): attention with the logits of a layer, the average without.

    See `attention_pool_and_skip` for what it means to go on with that x.
    """
    if key is None:
        return x, ops.average_pool(x)
    tensors = tensors_of(key, nn.Linear)
    if tensors is not None:
        return ops.attention_pool_and_skip(x, tensors[0][0], tensors[1])
    x_BPC = positions(x)
    return x, pool_by_logits(x_BPC, key(x_BPC))
