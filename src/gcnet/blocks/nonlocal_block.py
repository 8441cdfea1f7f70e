"""NL, the non-local block (arXiv 1711.07971). B images, C channels, D = C // reduction, P positions, Q keys."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet import ops
from gcnet.blocks.options import check_choice, hidden_channels
from gcnet.errors import GcnetTypeError
from gcnet.ops.attention_pooling import positions as positions
from gcnet.ops.checks import check_map
from gcnet.ops.nonlocal_attention import Pairwise

Norm = Literal["batch"]


class NonLocal(nn.Module):
    """z_i = x_i + W_z ((1 / C(x)) sum_j f(x_i, x_j) W_v x_j), the non-local block (arXiv 1711.07971, eqs. 1-6).

    W_z (or the gain and shift of the norm behind it) starts at zero, so the block starts as the identity, bit for bit.
    No P x P matrix is formed: see `gcnet.ops.nonlocal_attend`.

    Args:
        channels: C, channels of the map.
        pairwise: f: "gaussian", "embedded_gaussian", "dot_product" or "concatenation".
        reduction: theta, phi and g have C // reduction channels.
        scale: Factor on the logits of the two softmax forms and on f itself in the other two. 1 is the papers' formula;
            1 / sqrt(C // reduction) is what FAIR's code and mmcv's `use_scale` do for the embedded Gaussian.
        subsample: 2x2 max-pool of the keys and values ((1, 2, 2) in 3D, 2 in 1D, none along a size of 1): "after" their
            1x1 layers as in mmcv, "before" them (fewer operations, the paper's cost row), or False.
        norm: "batch" puts a batch norm behind W_z, which then has no bias; None for none.
        device: Where the parameters live.
        dtype: Floating-point type of the parameters.

    Shape:
        x (B, C, *spatial) -> (B, C, *spatial), one to three spatial dimensions; dtype of x.

    Raises:
        ValueError: an unknown choice, or a reduction that leaves no channel.

    Example:
        >>> x = torch.randn(2, 32, 5, 7)
        >>> torch.equal(NonLocal(32, pairwise="concatenation")(x), x)
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        pairwise: Pairwise = "embedded_gaussian",
        reduction: int = 2,
        scale: float = 1.0,
        subsample: Literal[False, "after", "before"] = False,
        norm: Norm | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        check_choice("pairwise", pairwise, get_args(Pairwise))
        check_choice("subsample", subsample, (False, "after", "before"))
        check_choice("norm", norm, ("batch", None))
        if not isinstance(scale, int | float) or isinstance(scale, bool):
            raise GcnetTypeError(
                f"scale={scale!r} is a {type(scale).__name__}; give a number, for example {channels}**-0.5"
            )
        self.channels, self.scale, self.subsample = channels, float(scale), subsample
        self.pairwise: Pairwise = pairwise

        def layer(bias: bool = True) -> nn.Linear:
            return nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)

        embedded = pairwise != "gaussian"
        self.theta = layer() if embedded else None
        self.phi = layer() if embedded else None
        self.g = layer()
        weight = torch.empty(2 * hidden, device=device, dtype=dtype)
        self.concat_weight = nn.Parameter(weight) if pairwise == "concatenation" else None
        self.out = nn.Linear(hidden, channels, bias=norm is None, device=device, dtype=dtype)
        self.norm = nn.BatchNorm1d(channels, device=device, dtype=dtype) if norm == "batch" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as published: theta, phi, g and w_f normal with deviation 0.01, W_z (or its norm's gain) zero."""
        for layer in (self.theta, self.phi, self.g):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        if self.concat_weight is not None:
            nn.init.normal_(self.concat_weight, std=0.01)
        if self.norm is None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        else:
            self.out.reset_parameters()
            self.norm.reset_parameters()
            nn.init.zeros_(self.norm.weight)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta (B, P, D), phi (B, Q, D) and g (B, Q, V) of a map, before the attention."""
        x_BPC = positions(x)
        keys = halve(x) if self.subsample == "before" else x
        keys_BQC = positions(keys)
        theta_BPD = x_BPC if self.theta is None else self.theta(x_BPC)
        phi_BQD = keys_BQC if self.phi is None else self.phi(keys_BQC)
        g_BQV = self.g(keys_BQC)
        if self.subsample == "after":
            phi_BQD, g_BQV = (positions(halve(as_map(t, x))) for t in (phi_BQD, g_BQV))
        if theta_BPD.dtype != g_BQV.dtype:  # the Gaussian form under autocast: x stays wide, g does not
            g_BQV = g_BQV.to(theta_BPD.dtype)
        return theta_BPD, phi_BQD, g_BQV

    def context(self, x: Tensor) -> Tensor:
        """What is added to x, (B, C, *spatial)."""
        theta_BPD, phi_BQD, g_BQV = self.embed(x)
        y_BPV = ops.nonlocal_attend(
            theta_BPD, phi_BQD, g_BQV, pairwise=self.pairwise, scale=self.scale, concat_weight=self.concat_weight
        )
        return as_map(self.out(y_BPV), x, self.norm)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return x + self.context(x).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, pairwise={self.pairwise}, scale={self.scale:g}, subsample={self.subsample}"


def as_map(y_BPC: Tensor, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """(B, P, C) -> (B, C, *spatial) with the spatial sizes of x, through the norm where there is one."""
    y_BCP = y_BPC.transpose(1, 2)
    return (y_BCP if norm is None else norm(y_BCP)).unflatten(2, x.shape[2:])


def halve(x: Tensor) -> Tensor:
    """Max-pool with stride 2 along every spatial size above 1; never along the time axis of a 3D map."""
    kernel = [1 if size == 1 else 2 for size in x.shape[2:]]
    if x.ndim == 5:
        kernel[0] = 1
    pool = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[x.ndim]
    return pool(x, kernel)
