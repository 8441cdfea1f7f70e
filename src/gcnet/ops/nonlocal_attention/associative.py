"""The dot-product form: theta (phi^T g) by associativity, O(P D V) time, no P x Q matrix."""

import torch
from torch import Tensor

from gcnet.ops.precision import accumulate_dtype, without_autocast


def associative_attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """(scale / Q) theta_i . (sum_j phi_j g_j^T), accumulated in float32 or wider."""
    wide = accumulate_dtype(theta)
    with without_autocast(theta):
        summary_BDV = torch.bmm(phi.to(wide).transpose(1, 2), g.to(wide)) * (scale / phi.shape[1])
        return torch.bmm(theta.to(wide), summary_BDV).to(g.dtype)
