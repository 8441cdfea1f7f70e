"""Relative positions as more channels of queries and keys, so that plain softmax attention serves them.

The feature of a pair is a sum over the two axes, so position_query . (rows[h, i] + columns[w, j]) takes one of I values
by the key's row and one of J by its column. With these I + J numbers behind the query, and behind the key a one in the
place of its row and of its column, the inner product of both is the whole logit: exact, and no P x Q matrix.

B images, N heads, H x W queries (P), I x J keys (Q), D channels of queries and keys, K = D + I + J, V of values.
"""

import torch
from torch import Tensor

from gcnet.ops.nonlocal_attention import nonlocal_attend
from gcnet.ops.precision import accumulate_dtype, without_autocast


def relative_attend_augmented(
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    position_query: Tensor,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """Same values as the reference; the largest tensor holds K numbers for every query of every head."""
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
