"""DNL, the non-local block with its pairwise and its query-independent part taken apart (arXiv 2006.06668)."""

from typing import Literal

import torch
from torch import Tensor, nn

from gcnet import ops
from gcnet.blocks.as_made import pool
from gcnet.blocks.nonlocal_block import as_map, positions
from gcnet.blocks.options import check_choice, hidden_channels
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map


class DisentangledNonLocal(nn.Module):
    """Disentangled non-local block (arXiv 2006.06668): x_i + W_z sum_j (pairwise_ij + unary_j) W_v x_j.

    `pairwise_ij = softmax_j((q_i - mean q) . (k_j - mean k) / (sqrt(C') temperature))` is what the query changes,
    `unary_j = softmax_j(w_m . x_j)` is one map for all queries, the part that GCNet keeps. The unary part is pooled
    before W_v is applied, since its weights sum to one.

    What differs from the authors' code, and why: their pairwise part has a factor gamma = 0 of its own while the
    unary part acts at once, here W_z (or the norm's gain) starts at zero, so that the whole block starts as the
    identity; the biases of q, k and w_m, which cancel in the whitening and in the softmax, are left out.

    Args:
        channels: Channels of the map.
        reduction: Queries, keys and values have C' = channels // reduction channels.
        temperature: Divides the pairwise logits; 0.05 in the authors' settings.
        norm: "batch" for a batch norm after W_z (its gain starts at zero, W_z has no bias), None for none.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, *spatial) with 1, 2 or 3 spatial dimensions -> the same.

    Raises:
        ValueError: an option out of its range, or x is no map of `channels` channels.

    Example:
        >>> DisentangledNonLocal(32)(torch.randn(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 2,
        temperature: float = 0.05,
        norm: Literal["batch"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        if not 0 < temperature < float("inf"):
            raise GcnetError(f"temperature={temperature!r} is not allowed; use a number above 0")
        check_choice("norm", norm, ("batch", None))
        self.channels = channels
        self.scale = 1 / (hidden**0.5 * temperature)
        self.query = nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype)
        self.key = nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype)
        self.value = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.mask = nn.Linear(channels, 1, bias=False, device=device, dtype=dtype)
        self.out = nn.Linear(hidden, channels, bias=norm is None, device=device, dtype=dtype)
        self.norm = None if norm is None else nn.BatchNorm1d(channels, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.01 as in the authors' code, zero biases, and a zero last layer."""
        for layer in (self.query, self.key, self.value, self.mask, self.out):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        last = self.out if self.norm is None else self.norm
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def context(self, x: Tensor) -> Tensor:
        """What is added to x, (B, C, *spatial)."""
        x_BPC = positions(x)
        query_BPK, key_BPK = self.query(x_BPC), self.key(x_BPC)
        pairwise_BPK = ops.nonlocal_attend(
            query_BPK - query_BPK.mean(dim=1, keepdim=True),
            key_BPK - key_BPK.mean(dim=1, keepdim=True),
            self.value(x_BPC),
            pairwise="embedded_gaussian",
            scale=self.scale,
        )
        unary_BK = self.value(pool(self.mask, x)[1])
        return as_map(self.out(pairwise_BPK + unary_BK[:, None]), x, self.norm)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return x + self.context(x).to(x.dtype)
