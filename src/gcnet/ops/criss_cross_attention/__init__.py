"""Criss-cross attention: every position looks at its own row and column, the pairwise step of CCNet."""

from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map
from gcnet.ops.criss_cross_attention.fused import criss_cross_fused
from gcnet.ops.criss_cross_attention.reference import criss_cross_reference as criss_cross_reference


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
    if key.shape != query.shape:
        raise GcnetError(f"key has shape {tuple(key.shape)}; expected {tuple(query.shape)}, the shape of query")
    check_map(value, dims=(2,), name="value")
    if value.shape[0] != query.shape[0] or value.shape[2:] != query.shape[2:]:
        B, _, H, W = query.shape
        raise GcnetError(f"value has shape {tuple(value.shape)}; expected ({B}, V, {H}, {W}) to go with query")
    return criss_cross_fused(query, key, value)
