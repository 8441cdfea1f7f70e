"""Criss-cross attention as one product along the columns and one along the rows. I, J: the keys' H and W."""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def criss_cross_fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Same values as the reference; the largest tensor holds H + W numbers for every position."""
    wide = accumulate_dtype(query)
    H = query.shape[2]
    with without_autocast(query):
        query_BDHW, key_BDHW, value_BVHW = query.to(wide), key.to(wide), value.to(wide)
        column_BHWI = torch.einsum("bdhw,bdiw->bhwi", query_BDHW, key_BDHW)
        row_BHWJ = torch.einsum("bdhw,bdhj->bhwj", query_BDHW, key_BDHW)
        # the position itself lies on its row and on its column: the row keeps it
        itself_H1I = torch.eye(H, dtype=torch.bool, device=query.device)[:, None]
        logits_BHWK = torch.cat([column_BHWI.masked_fill(itself_H1I, -torch.inf), row_BHWJ], dim=3)
        weights_BHWK = logits_BHWK.softmax(dim=3)
        y_BVHW = torch.einsum("bhwi,bviw->bvhw", weights_BHWK[..., :H], value_BVHW)
        y_BVHW = y_BVHW + torch.einsum("bhwj,bvhj->bvhw", weights_BHWK[..., H:], value_BVHW)
    return y_BVHW.to(value.dtype)
