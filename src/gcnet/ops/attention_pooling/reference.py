"""The definition of attention pooling, step by step. B images, C channels, P positions."""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def attention_pool_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """context_b = sum_j softmax_j(w . x_bj + bias) x_bj (arXiv 1904.11492, eq. 5), computed in float32 or wider."""
    wide = accumulate_dtype(x)
    with without_autocast(x):
        x_BCP = x.flatten(2).to(wide)
        logits_BP = torch.einsum("bcp,c->bp", x_BCP, weight.to(wide))
        if bias is not None:
            logits_BP = logits_BP + bias.to(wide)
        alpha_BP = logits_BP.softmax(dim=1)
        return torch.einsum("bcp,bp->bc", x_BCP, alpha_BP).to(x.dtype)
