"""Attention pooling as two batched matrix products on views: no copy of the map in NCHW or channels_last."""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def attention_pool_fused(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Same values as the reference. The bias cancels in the softmax: it is not read, its gradient is exactly zero."""
    wide = accumulate_dtype(x)
    with without_autocast(x):
        x_BPC = x.movedim(1, -1).flatten(1, -2).to(wide)  # a view for both memory formats (unless half precision)
        logits_BP1 = torch.bmm(x_BPC, weight.to(wide)[:, None].expand(x.shape[0], -1, -1))
        alpha_B1P = logits_BP1.softmax(dim=1).transpose(1, 2)
        context_BC = torch.bmm(alpha_B1P, x_BPC).squeeze(1)
        if bias is not None and bias.requires_grad and torch.is_grad_enabled():
            context_BC = context_BC + 0 * bias.to(wide)  # an explicit zero gradient: DDP waits for every parameter
        return context_BC.to(x.dtype)
