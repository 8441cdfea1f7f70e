"""The definition of the context path, step by step, in float32 or wider."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from gcnet.ops.attention_pooling.reference import attention_pool_reference
from gcnet.ops.precision import accumulate_dtype, without_autocast

ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "hard_swish": F.hardswish}


class Branch(NamedTuple):
    """A context block's transform as tensors: linear -> [LayerNorm] -> [activation] -> linear, or one linear layer.

    Attributes:
        weights: Of the first linear layer, the norm and the last linear layer, each with its bias behind it; None for
            what is not there. The norm and the activation only exist after a first layer.
        eps: Of the LayerNorm.
        activation: A name of `ACTIVATIONS`, or None.
    """

    weights: tuple[Tensor | None, ...]
    eps: float = 1e-5
    activation: str | None = None


def pooled_transform_reference(
    h: Tensor,
    key: Tensor | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    *,
    eps: float = 1e-5,
    activation: str | None = "relu",
) -> Tensor:
    """Pool, then linear -> [LayerNorm] -> [activation] -> linear (arXiv 1904.11492, eq. 5); see `pooled_transform`."""
    weights = (reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias)
    h_wide = h.to(accumulate_dtype(h))
    with without_autocast(h):
        pooled_BK = h_wide.flatten(2).mean(2) if key is None else attention_pool_reference(h_wide, key)
        return transform(pooled_BK, Branch(weights, eps, activation)).to(h.dtype)


def transform(pooled_BK: Tensor, branch: Branch) -> Tensor:
    """The transform on vectors, in their dtype."""
    reduce, reduce_bias, norm, norm_bias, expand, expand_bias = (
        None if weight is None else weight.to(pooled_BK.dtype) for weight in branch.weights
    )
    assert expand is not None
    hidden_BH = pooled_BK
    if reduce is not None:
        hidden_BH = F.linear(pooled_BK, reduce, reduce_bias)
        if norm is not None:
            hidden_BH = F.layer_norm(hidden_BH, norm.shape, norm, norm_bias, branch.eps)
        if branch.activation is not None:
            hidden_BH = ACTIVATIONS[branch.activation](hidden_BH)
    return F.linear(hidden_BH, expand, expand_bias)
