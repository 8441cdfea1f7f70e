"""Attention pooling: one softmax-weighted mean of all positions, the context modelling of GCNet and SNL."""

import torch
from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.attention_pooling import kernels
from gcnet.ops.attention_pooling.fused import attention_pool_fused
from gcnet.ops.attention_pooling.fused import pool_by_logits as pool_by_logits
from gcnet.ops.attention_pooling.fused import positions as positions
from gcnet.ops.attention_pooling.reference import attention_pool_reference as attention_pool_reference
from gcnet.ops.checks import check_map, check_shape


def attention_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Pool a map to one vector with one attention map for all queries (arXiv 1904.11492, eq. 5).

    `context_b = sum_j alpha_bj x_bj` with `alpha_b = softmax_j(weight . x_bj + bias)` over all positions.

    Args:
        x: Feature map with one, two or three spatial dimensions.
        weight: The key vector w_k.
        bias: Its bias, a scalar or one number. It cancels in the softmax; its gradient is exactly zero.

    Shape:
        x (B, C, *spatial), weight (C,), bias () or (1,) -> context (B, C).

    Dtype:
        That of x; logits, softmax and sums are float32 or wider, also under autocast.

    Raises:
        ValueError: x is no map with positions, or weight or bias do not fit it.

    Example:
        >>> import torch
        >>> attention_pool(torch.ones(2, 3, 4, 4), torch.zeros(3)).shape
        torch.Size([2, 3])
    """
    check_map(x)
    check_shape("weight", weight, (x.shape[1],), ", one number per channel of x")
    if bias is not None and bias.numel() != 1:
        raise GcnetError(f"bias has shape {tuple(bias.shape)}; expected a scalar or shape (1,)")
    serve = kernels.attention_pool_kernels if kernels.available(x) else attention_pool_fused
    return _reach(bias, serve(x, weight))


def attention_pool_and_skip(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`attention_pool`, and x to go on with: `(x, context)`.

    Who adds the returned x to something that depends on the context saves a pass over the map in training on a GPU:
    the two gradients of x are added while the pool's own is written. Elsewhere it is x itself.
    """
    differentiable = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not differentiable or torch.compiler.is_compiling() or not kernels.available(x):
        return x, attention_pool(x, weight, bias)
    x, context_BC = kernels.attention_pool_and_skip(x, weight)
    return x, _reach(bias, context_BC)


def _reach(bias: Tensor | None, context_BC: Tensor) -> Tensor:
    """The context, with a gradient of exactly zero for the bias, which no path reads: DDP waits for every parameter."""
    if bias is None or not bias.requires_grad or not torch.is_grad_enabled():
        return context_BC
    return context_BC + 0 * bias.to(context_BC.dtype)
