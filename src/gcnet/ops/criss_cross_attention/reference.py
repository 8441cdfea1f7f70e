"""The definition of criss-cross attention: a softmax over all P = H W positions, those off the cross masked."""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def criss_cross_reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """y_i = sum over j in the row or column of i of softmax_j(query_i . key_j) value_j (arXiv 1811.11721, eqs. 1-2)."""
    wide = accumulate_dtype(query)
    H, W = query.shape[2:]
    row_P = torch.arange(H, device=query.device).repeat_interleave(W)
    column_P = torch.arange(W, device=query.device).repeat(H)
    on_cross_PP = (row_P[:, None] == row_P) | (column_P[:, None] == column_P)
    with without_autocast(query):
        logits_BPP = torch.einsum("bdp,bdq->bpq", query.flatten(2).to(wide), key.flatten(2).to(wide))
        weights_BPP = logits_BPP.masked_fill(~on_cross_PP, -torch.inf).softmax(dim=2)
        y_BVP = torch.einsum("bpq,bvq->bvp", weights_BPP, value.flatten(2).to(wide))
    return y_BVP.to(value.dtype).reshape(value.shape)
