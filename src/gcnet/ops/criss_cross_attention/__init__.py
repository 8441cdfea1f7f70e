"""Criss-cross attention: every position looks at its own row and column, the pairwise step of CCNet.

One product along the columns and one along the rows; the largest tensor holds H + W numbers for every position.
I, J: the keys' H and W.
"""

import torch
from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map, check_shape
from gcnet.ops.criss_cross_attention.reference import criss_cross_reference as criss_cross_reference
from gcnet.ops.precision import accumulate_dtype, without_autocast


def criss_cross(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """y_i = sum_j softmax_j(query_i . key_j) value_j, j in the row and column of i (arXiv 1811.11721, eqs. 1-2).

    H + W - 1 positions: i itself counts once. O(P (H + W)) time and memory: no P x P matrix.

    Args:
        query: One query per position.
        key: One key per position.
        value: One value per position.

    Shape:
        query (B, D, H, W), key (B, D, H, W), value (B, V, H, W) -> (B, V, H, W).

    Dtype:
        That of value; products, softmax and sums are float32 or wider, also under autocast.

    Raises:
        ValueError: a tensor is no (B, C, H, W) map, or the three do not fit together.

    Example:
        >>> import torch
        >>> query, key, value = torch.randn(2, 4, 5, 7), torch.randn(2, 4, 5, 7), torch.randn(2, 6, 5, 7)
        >>> criss_cross(query, key, value).shape
        torch.Size([2, 6, 5, 7])
    """
    check_map(query, dims=(2,), name="query")
    check_shape("key", key, tuple(query.shape), ", the shape of query")
    check_map(value, dims=(2,), name="value")
    B, _, H, W = query.shape
    if value.shape[0] != B or value.shape[2:] != query.shape[2:]:
        raise GcnetError(f"value has shape {tuple(value.shape)}; expected ({B}, V, {H}, {W}) to go with query")
    wide = accumulate_dtype(query)
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
