"""Attention pooling as two batched matrix products on views: no copy of the map in NCHW or channels_last.

B images, C channels, P positions. Which product is used for which memory format was measured: with the operands the
other way round the same sums take up to eight times as long (benchmarks/block_alone.py).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.ops.precision import accumulate_dtype, without_autocast


def attention_pool_fused(x: Tensor, weight: Tensor) -> Tensor:
    """Same values as the reference; there is no bias, which cancels in the softmax."""
    wide = accumulate_dtype(x)
    with without_autocast(x):
        x_wide, weight_C = x.to(wide), weight.to(wide)
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            context_BC, _ = AttentionPool.apply(x_wide, weight_C)  # type: ignore[misc]
        else:
            context_BC, _ = _pool(x_wide, weight_C)
        return context_BC.to(x.dtype)


def pool_by_logits(x_BPC: Tensor, logits_BP1: Tensor) -> Tensor:
    """The context (B, C) of logits that are there already, whose softmax and sums are float32 or wider."""
    wide = accumulate_dtype(x_BPC)
    with without_autocast(x_BPC):
        alpha_B1P = logits_BP1.to(wide).softmax(1).transpose(1, 2)
        return torch.bmm(alpha_B1P, x_BPC.to(wide)).squeeze(1).to(x_BPC.dtype)


class AttentionPool(torch.autograd.Function):
    """The pool with a backward that writes the map's gradient once, as a product of rank two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return _pool(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad_BC: Tensor, _: Any) -> tuple[Tensor | None, Tensor | None]:
        """With s_j = grad . x_j: the logits' gradient is d_j = alpha_j (s_j - sum_i alpha_i s_i)."""
        x, weight_C, alpha_B1P = ctx.saved_tensors
        with without_autocast(x):
            if torch.is_grad_enabled():  # a second derivative is wanted: let alpha depend on x and weight again
                alpha_B1P = _pool(x, weight_C)[1]
            share_B1P = alpha_B1P * _along(x, grad_BC)
            logits_B1P = share_B1P - alpha_B1P * share_B1P.sum(-1, keepdim=True)
            grad_x = grad_weight = None
            if ctx.needs_input_grad[0]:
                left_B2C = torch.stack([grad_BC, weight_C.expand_as(grad_BC)], 1)
                right_B2P = torch.cat([alpha_B1P, logits_B1P], 1)
                grad_x = _outer(left_B2C, right_B2P, x)
            if ctx.needs_input_grad[1]:
                grad_weight = _weighted_sum(x, logits_B1P).sum(0)
        return grad_x, grad_weight


def positions(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, P, C), a view where the memory format allows it."""
    return x.flatten(2).transpose(1, 2) if x.is_contiguous() else x.movedim(1, -1).flatten(1, -2)


def _pool(x: Tensor, weight_C: Tensor) -> tuple[Tensor, Tensor]:
    """The context (B, C) and the attention map (B, 1, P)."""
    if x.is_contiguous():
        logits_B1P = torch.bmm(weight_C.expand(x.shape[0], 1, -1), x.flatten(2))
    else:
        logits_B1P = F.linear(x.movedim(1, -1).flatten(1, -2), weight_C[None]).transpose(1, 2)
    alpha_B1P = logits_B1P.softmax(-1)
    return _weighted_sum(x, alpha_B1P), alpha_B1P


def _weighted_sum(x: Tensor, alpha_B1P: Tensor) -> Tensor:
    """sum_j alpha_j x_j, (B, C)."""
    return torch.bmm(alpha_B1P, positions(x)).squeeze(1)


def _along(x: Tensor, direction_BC: Tensor) -> Tensor:
    """direction . x_j at every position, (B, 1, P)."""
    if x.is_contiguous():
        return torch.bmm(direction_BC[:, None], x.flatten(2))
    return torch.bmm(x.movedim(1, -1).flatten(1, -2), direction_BC[:, :, None]).transpose(1, 2)


def _outer(left_B2C: Tensor, right_B2P: Tensor, x: Tensor) -> Tensor:
    """sum_k left_k right_k^T as a map of the shape and memory format of x."""
    if x.is_contiguous():
        return torch.bmm(left_B2C.transpose(1, 2), right_B2P).view_as(x)
    map_BPC = torch.bmm(right_B2P.transpose(1, 2), left_B2C)
    return map_BPC.unflatten(1, x.shape[2:]).movedim(-1, 1)
