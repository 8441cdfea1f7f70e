"""Attention whose logits also see where query and key lie to each other, by row and by column.

The feature of a pair is a sum over the two axes, so position_query . (rows[h, i] + columns[w, j]) takes one of I values
by the key's row and one of J by its column. With these I + J numbers behind the query, and behind the key a one in the
place of its row and of its column, the inner product of both is the whole logit: exact, and no P x Q matrix.

B images, N heads, H x W queries (P), I x J keys (Q), D channels of queries and keys, K = D + I + J, V of values.
"""

import torch
from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.nonlocal_attention import nonlocal_attend
from gcnet.ops.precision import accumulate_dtype, without_autocast
from gcnet.ops.relative_attention.reference import relative_attend_reference as relative_attend_reference


def relative_attend(
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    *,
    position_query: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """y_i = sum_j softmax_j(q_i . k_j + p_i . (rows_ij + columns_ij)) v_j (arXiv 1904.05873, eqs. 1-5).

    The softmax runs over all keys of a grid of I x J, which may be coarser than the H x W queries. Time O(P Q), memory
    O(P (D + I + J)): no P x Q matrix.

    Args:
        query: q, what the content of the key is compared with; None for logits of the position alone.
        key: k; None with query.
        value: v.
        position_query: p, what the features of the relative position are compared with.
        rows: Features of the pairs of a query's row and a key's row.
        columns: Features of the pairs of columns.

    Shape:
        query (B, N, H, W, D), key (B, N, I, J, D), value (B, N, I, J, V), position_query (B, N, H, W, E), rows
        (N, H, I, E), columns (N, W, J, E) -> (B, N, H, W, V). The queries may have size 1 along B, H and W.

    Dtype:
        That of value; products, softmax and sums are float32 or wider, also under autocast.

    Raises:
        ValueError: query without key or the reverse, or shapes that do not fit.

    Example:
        >>> import torch
        >>> value, p = torch.randn(2, 4, 3, 3, 8), torch.randn(2, 4, 6, 5, 8)
        >>> rows, columns = torch.randn(4, 6, 3, 8), torch.randn(4, 5, 3, 8)
        >>> relative_attend(None, None, value, position_query=p, rows=rows, columns=columns).shape
        torch.Size([2, 4, 6, 5, 8])
    """
    _check(query, key, value, position_query, rows, columns)
    B, N, I, J, V = value.shape
    H, W = rows.shape[1], columns.shape[1]
    wide = accumulate_dtype(value)
    with without_autocast(value):
        query_BNHWE = position_query.to(wide)
        by_row_BNHWI = query_BNHWE @ rows.to(wide).mT
        by_column_BNHWJ = (query_BNHWE.transpose(2, 3) @ columns.to(wide).mT).transpose(2, 3)
        in_row_QI = torch.eye(I, dtype=wide, device=value.device).repeat_interleave(J, dim=0)
        in_column_QJ = torch.eye(J, dtype=wide, device=value.device).repeat(I, 1)
        thetas = [t.expand(B, N, H, W, -1) for t in (by_row_BNHWI, by_column_BNHWJ)]
        phis = [t.expand(B, N, -1, -1) for t in (in_row_QI, in_column_QJ)]
        if query is not None and key is not None:
            thetas.append(query.to(wide).expand(B, N, H, W, -1))
            phis.append(key.to(wide).flatten(2, 3))
        theta_MPK = torch.cat(thetas, dim=-1).flatten(2, 3).flatten(0, 1)
        phi_MQK = torch.cat(phis, dim=-1).flatten(0, 1)
        value_MQV = value.to(wide).reshape(B * N, I * J, V)
        y_MPV = nonlocal_attend(theta_MPK, phi_MQK, value_MQV, pairwise="embedded_gaussian")
    return y_MPV.reshape(B, N, H, W, V).to(value.dtype)


def _check(
    query: Tensor | None, key: Tensor | None, value: Tensor, position_query: Tensor, rows: Tensor, columns: Tensor
) -> None:
    if value.ndim != 5 or 0 in value.shape[2:4]:
        raise GcnetError(f"value has shape {tuple(value.shape)}; expected (B, N, I, J, V) with at least one key")
    if rows.ndim != 4 or columns.ndim != 4:
        raise GcnetError(
            f"rows and columns must be (N, H, I, E) and (N, W, J, E); got {tuple(rows.shape)}, {tuple(columns.shape)}"
        )
    B, N, I, J, _ = value.shape
    H, W, E = rows.shape[1], columns.shape[1], rows.shape[3]
    _expect("rows", rows, (N, H, I, E))
    _expect("columns", columns, (N, W, J, E))
    _expect("position_query", position_query, (B, N, H, W, E), broadcast=True)
    if (query is None) != (key is None):
        raise GcnetError("query and key go together: give both, or None for both")
    if query is not None and key is not None:
        _expect("key", key, (B, N, I, J, key.shape[-1]))
        _expect("query", query, (B, N, H, W, key.shape[-1]), broadcast=True)


def _expect(name: str, tensor: Tensor, shape: tuple[int, ...], *, broadcast: bool = False) -> None:
    sizes = tuple(tensor.shape)
    free = (0, 2, 3) if broadcast else ()
    if len(sizes) != len(shape) or any(
        n != m and not (i in free and n == 1) for i, (n, m) in enumerate(zip(sizes, shape, strict=True))
    ):
        raise GcnetError(f"{name} has shape {sizes}; expected {shape} to go with the others")
