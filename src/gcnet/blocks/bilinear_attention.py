"""BAT, the non-local block with grouped bilinear attentional transforms (CVPR 2020), starting as the identity."""

import torch
from torch import Tensor

from gcnet.blocks.gated import Gated
from gcnet.blocks.options import check_channels, check_count, hidden_channels
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map


class BilinearAttention(Gated):
    """Grouped bilinear attentional transform (Chi et al., CVPR 2020); timm's `BatNonLocalAttn` behind `Gated`.

    The narrow map is multiplied from the left and from the right by two attention matrices of block_size x block_size
    per group, each computed from the map's pooled rows or columns and spread over maps that are a multiple of that
    size.

    Height and width must be multiples of `block_size`: the transform mixes cells of a block_size x block_size grid
    and is not defined for others (padding would change the pooled rows and columns, so the values). The default 7
    fits stages c3 to c5 at input sizes that are multiples of 224; for other inputs choose a size that divides every
    map the block sees.

    Args:
        channels: Channels of the map.
        reduction: The narrow map has channels // reduction channels, a multiple of `groups`.
        block_size: Side of the attention matrices.
        groups: Groups of channels with an attention of their own.
        dropout: Probability of dropping a channel of the update in training.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W), H and W multiples of block_size -> the same.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map of fitting size.

    Example:
        >>> BilinearAttention(32)(torch.randn(2, 32, 14, 7)).shape
        torch.Size([2, 32, 14, 7])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 4,
        block_size: int = 7,
        groups: int = 2,
        dropout: float = 0.2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from timm.layers import BatNonLocalAttn  # here, since timm takes seconds to import

        check_channels(channels)
        hidden = hidden_channels(channels, None, reduction)
        check_count("block_size", block_size)
        if hidden % check_count("groups", groups):
            raise GcnetError(
                f"groups={groups} does not divide the {hidden} hidden channels "
                f"(channels={channels} // reduction={reduction}); use a divisor of {hidden}"
            )
        if not 0 <= dropout < 1:
            raise GcnetError(f"dropout={dropout!r} is no probability below one; use 0 <= dropout < 1")
        block = BatNonLocalAttn(channels, block_size, groups, rd_channels=hidden, drop_rate=dropout)
        super().__init__(block.to(device=device, dtype=dtype), device=device, dtype=dtype)
        self.channels, self.block_size = channels, block_size

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        if x.shape[2] % self.block_size or x.shape[3] % self.block_size:
            raise GcnetError(
                f"x has shape {tuple(x.shape)}; height and width must be multiples of block_size={self.block_size}: "
                f"build the block with a block_size that divides both, or resize the input"
            )
        return super().forward(x)
