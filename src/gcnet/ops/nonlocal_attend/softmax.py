"""The Gaussian forms: softmax attention in O(P) memory through PyTorch's fused kernels."""

from torch import Tensor
from torch.nn import functional as F


def softmax_attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """softmax_j(scale * theta_i . phi_j) g_j without the P x Q matrix.

    The fused CPU kernel wants equal head sizes (else it falls back to the matrix), so the smaller side is padded with
    zeros: on theta and phi they leave the logits alone, on g they add columns that are cut off again.
    """
    D, V = theta.shape[2], g.shape[2]
    if D < V:
        theta, phi = F.pad(theta, (0, V - D)), F.pad(phi, (0, V - D))
    elif V < D:
        g = F.pad(g, (0, D - V))
    out_B1PV = F.scaled_dot_product_attention(theta[:, None], phi[:, None], g[:, None], scale=scale)
    return out_B1PV[:, 0, :, :V]
