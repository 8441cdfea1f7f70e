"""The definition of attention with relative positions, with the P x Q matrix.

B images, N heads, H x W queries, I x J keys, D channels of queries and keys, E of position features, V of values.
"""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def relative_attend_reference(
    query: Tensor | None, key: Tensor | None, value: Tensor, position_query: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """softmax over the keys (i, j) of query . key + position_query . (rows[h, i] + columns[w, j]), times value."""
    wide = accumulate_dtype(value)
    I, J = value.shape[2:4]
    with without_autocast(value):
        feature_NHWIJE = rows.to(wide)[:, :, None, :, None] + columns.to(wide)[:, None, :, None]
        logits_BNHWIJ = torch.einsum(
            "bnhwe,nhwije->bnhwij",
            position_query.to(wide).expand(-1, -1, rows.shape[1], columns.shape[1], -1),
            feature_NHWIJE,
        )
        if query is not None and key is not None:
            logits_BNHWIJ = logits_BNHWIJ + torch.einsum(
                "bnhwd,bnijd->bnhwij", query.to(wide).expand(len(key), -1, -1, -1, -1), key.to(wide)
            )
        weights_BNHWQ = logits_BNHWIJ.flatten(4).softmax(dim=4).expand(len(value), -1, -1, -1, I * J)
        y_BNHWV = torch.einsum("bnhwq,bnqv->bnhwv", weights_BNHWQ, value.to(wide).flatten(2, 3))
    return y_BNHWV.to(value.dtype)
