"""The definition of the four non-local forms, with the P x Q matrix.

B images, P queries, Q keys, D and V channels.
"""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def pairwise_weights(
    theta: Tensor, phi: Tensor, *, pairwise: str, scale: float = 1.0, concat_weight: Tensor | None = None
) -> Tensor:
    """f(x_i, x_j) / C(x) as a matrix (B, P, Q), float32 or wider (arXiv 1711.07971, eqs. 2-6).

    For looking at it and for tests: it takes O(P Q) memory.
    """
    wide = accumulate_dtype(theta)
    with without_autocast(theta):
        theta_BPD, phi_BQD = theta.to(wide), phi.to(wide)
        if pairwise in ("gaussian", "embedded_gaussian"):
            return (scale * torch.einsum("bpd,bqd->bpq", theta_BPD, phi_BQD)).softmax(dim=2)
        if pairwise == "dot_product":
            f_BPQ = torch.einsum("bpd,bqd->bpq", theta_BPD, phi_BQD)
        else:
            assert concat_weight is not None
            P, Q = theta.shape[1], phi.shape[1]
            pairs_BPQ2D = torch.cat(
                [theta_BPD[:, :, None].expand(-1, -1, Q, -1), phi_BQD[:, None].expand(-1, P, -1, -1)], dim=3
            )
            f_BPQ = (pairs_BPQ2D @ concat_weight.to(wide)).relu()
        return scale * f_BPQ / phi.shape[1]


def nonlocal_attend_reference(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    pairwise: str,
    scale: float = 1.0,
    concat_weight: Tensor | None = None,
) -> Tensor:
    """y_i = (1 / C(x)) sum_j f(x_i, x_j) g_j (arXiv 1711.07971, eq. 1), by the definition."""
    weights_BPQ = pairwise_weights(theta, phi, pairwise=pairwise, scale=scale, concat_weight=concat_weight)
    with without_autocast(theta):
        return (weights_BPQ @ g.to(weights_BPQ.dtype)).to(g.dtype)
