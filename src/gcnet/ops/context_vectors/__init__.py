"""The context path of a block: pool a map to one vector per image and transform it, for every branch of the block.

`choose` names the backend of a call: `cpu` has few calls, `triton` few launches, `general` serves everything.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.attention_pooling import attention_pool
from gcnet.ops.checks import check_map, check_shape
from gcnet.ops.context_vectors import cpu, triton
from gcnet.ops.context_vectors.reference import ACTIVATIONS, transform
from gcnet.ops.context_vectors.reference import Branch as Branch
from gcnet.ops.context_vectors.reference import pooled_transform_reference as pooled_transform_reference
from gcnet.ops.precision import accumulate_dtype, without_autocast


def average_pool(x: Tensor) -> Tensor:
    """Mean over all positions of a feature map, summed in float32 or wider (arXiv 1709.01507, eq. 2).

    Args:
        x: Feature map with one, two or three spatial dimensions, floating point.

    Shape:
        x (B, C, *spatial) -> context (B, C), in the dtype of x.

    Raises:
        ValueError: x has no spatial dimension or no position.

    Example:
        >>> import torch
        >>> average_pool(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """
    check_map(x)
    return x.flatten(2).mean(2, dtype=accumulate_dtype(x)).to(x.dtype)


def _general(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """Every call: gradients, any dtype, autocast, traced and exported graphs."""
    pooled_BC = average_pool(x) if key is None else attention_pool(x, key)
    with without_autocast(x):
        wide_BC = pooled_BC.to(accumulate_dtype(x))
        return [transform(wide_BC, branch).to(x.dtype) for branch in branches]


class Backend(NamedTuple):
    """Whether it takes a call, and how it computes it."""

    serves: Callable[[Tensor, Tensor | None, Sequence[Branch]], bool]
    vectors: Callable[[Tensor, Tensor | None, Sequence[Branch]], list[Tensor]]


BACKENDS = {  # the first that serves a call
    "cpu": Backend(cpu.serves, cpu.vectors),
    "triton": Backend(triton.serves, triton.vectors),
    "general": Backend(lambda x, key, branches: True, _general),
}


def context_vectors(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """Context modelling and transform of a context block: what it adds to its map, or scales it with.

    One vector per branch, `branch(sum_j alpha_j x_j)` with `alpha = softmax_j(key . x_j)` (arXiv 1904.11492, eq. 5,
    without the fusion). There is no bias of the key: it cancels. Shapes are not checked: see `pooled_transform`.

    Args:
        x: Feature map, one to three spatial dimensions; in a folded block the narrow one.
        key: The key vector w_k; None for average pooling (alpha = 1 / P).
        branches: The transforms.

    Shape:
        x (B, K, *spatial), key (K,) -> (B, C) for each branch.

    Dtype:
        That of x; everything is computed in float32 or wider, also under autocast.
    """
    return BACKENDS[choose(x, key, branches)].vectors(x, key, branches)


def choose(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> str:
    """The name of the backend that serves this call."""
    for name, backend in BACKENDS.items():
        if backend.serves(x, key, branches):
            return name
    raise AssertionError("the general backend serves every call")


def pooled_transform(
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
    """Context modelling and transform of a folded block in one op (arXiv 1904.11492, eq. 5, without the fusion).

    `t = expand(activation(LayerNorm(reduce(sum_j alpha_j h_j))))` with `alpha = softmax_j(key . h_j)`. There is no
    bias of the key: it cancels.

    Args:
        h: Feature map, one to three spatial dimensions; in a folded block the narrow one.
        key: The key vector w_k; None for average pooling (alpha = 1 / P).
        reduce_weight: First linear layer; None for a transform of one layer, `expand` alone.
        reduce_bias: Its bias, or None.
        norm_weight: Factors of the LayerNorm over the H hidden channels; None for no LayerNorm.
        norm_bias: Its summands, or None.
        expand_weight: Last linear layer.
        expand_bias: Its bias, or None.
        eps: Of the LayerNorm.
        activation: "relu", "silu", "gelu", "hard_swish" or None; it comes before `expand` and, like the norm, only
            exists after a first layer.

    Shape:
        h (B, K, *spatial), key (K,), reduce_weight (H, K), expand_weight (C, H), or (C, K) without a first layer
        -> t (B, C).

    Dtype:
        That of h; everything is computed in float32 or wider, also under autocast.

    Raises:
        ValueError: h is no map with positions, a shape does not fit, a bias or norm without its layer, an unknown
            activation.

    Example:
        >>> import torch
        >>> h, key, reduce, expand = torch.randn(2, 8, 4, 4), torch.randn(8), torch.randn(3, 8), torch.randn(32, 3)
        >>> pooled_transform(h, key, reduce, None, torch.ones(3), torch.zeros(3), expand, torch.zeros(32)).shape
        torch.Size([2, 32])
    """
    check_map(h, name="h")
    if activation is not None and activation not in ACTIVATIONS:
        raise GcnetError(f"activation={activation!r} is unknown; use one of {', '.join(ACTIVATIONS)} or None")
    if reduce_weight is None:
        for name, value in (("reduce_bias", reduce_bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
            if value is not None:
                raise GcnetError(f"{name} is given, but reduce_weight is None; leave both out or give both")
    elif norm_weight is None and norm_bias is not None:
        raise GcnetError("norm_bias is given, but norm_weight is None; give ones if the norm has no factors")
    K, H = h.shape[1], 0 if reduce_weight is None else reduce_weight.shape[0]
    fits = f" for h {tuple(h.shape)}"
    check_shape("key", key, (K,), fits)
    check_shape("reduce_weight", reduce_weight, (H, K), fits)
    for name, value in (("reduce_bias", reduce_bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
        check_shape(name, value, (H,), fits)
    check_shape("expand_weight", expand_weight, (*(expand_weight.shape[:1] or (1,)), H or K), fits)
    check_shape("expand_bias", expand_bias, (expand_weight.shape[0],), fits)
    weights = (reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias)
    return context_vectors(h, key, [Branch(weights, eps, activation)])[0]
