"""Blocks whose code is timm's, behind `Gated`: CBAM, ECA, BAT. timm takes seconds to import: at the first one."""

import torch
from torch import Tensor

from gcnet.blocks.gated import GatedMap
from gcnet.blocks.options import check_channels, check_count, check_odd, hidden_channels
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map


class Cbam(GatedMap):
    """Convolutional block attention module (arXiv 1807.06521); timm's `CbamModule` behind `Gated`.

    Channel gate sigmoid(mlp(mean) + mlp(max)) over all positions, then spatial gate sigmoid(BN(conv([mean, max])))
    over the channels. The spatial gate's batch norm needs more than one value in training: no batch of one 1x1 map.

    Args:
        channels: Channels of the map.
        reduction: The shared two-layer perceptron has channels // reduction hidden channels.
        kernel_size: Of the spatial convolution, odd.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W) -> the same.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map.

    Example:
        >>> Cbam(32)(torch.randn(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from timm.layers.cbam import CbamModule

        hidden = hidden_channels(channels, reduction)
        block = CbamModule(channels, rd_channels=hidden, spatial_kernel_size=check_odd("kernel_size", kernel_size))
        super().__init__(channels, block, device=device, dtype=dtype)


class EfficientChannelAttention(GatedMap):
    """Efficient channel attention (arXiv 1910.03151); timm's `EcaModule` behind `Gated`.

    x * sigmoid(conv1d(mean of x over the positions)), the convolution running along the channels.

    Args:
        channels: Channels of the map.
        kernel_size: Of the convolution, odd. None: the paper's rule, (log2(channels) + 1) / 2 made odd, at least 3.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W) -> the same.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map.

    Example:
        >>> sum(p.numel() for p in EfficientChannelAttention(256).parameters())  # 5 taps and gamma
        6
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        from timm.layers import EcaModule

        check_channels(channels)
        if kernel_size is None:
            block = EcaModule(channels)
        else:
            block = EcaModule(kernel_size=check_odd("kernel_size", kernel_size))
        super().__init__(channels, block, device=device, dtype=dtype)


class BilinearAttention(GatedMap):
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
        from timm.layers import BatNonLocalAttn

        hidden = hidden_channels(channels, reduction)
        check_count("block_size", block_size)
        if hidden % check_count("groups", groups):
            raise GcnetError(
                f"groups={groups} does not divide the {hidden} hidden channels "
                f"(channels={channels} // reduction={reduction}); use a divisor of {hidden}"
            )
        if not 0 <= dropout < 1:
            raise GcnetError(f"dropout={dropout!r} is no probability below one; use 0 <= dropout < 1")
        block = BatNonLocalAttn(channels, block_size, groups, rd_channels=hidden, drop_rate=dropout)
        super().__init__(channels, block, device=device, dtype=dtype)
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        if x.shape[2] % self.block_size or x.shape[3] % self.block_size:
            raise GcnetError(
                f"x has shape {tuple(x.shape)}; height and width must be multiples of block_size={self.block_size}: "
                f"build the block with a block_size that divides both, or resize the input"
            )
        return super().forward(x)
