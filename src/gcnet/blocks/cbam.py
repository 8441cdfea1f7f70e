"""CBAM, channel attention followed by spatial attention (arXiv 1807.06521), starting as the identity."""

import torch
from torch import Tensor

from gcnet.blocks.gated import Gated
from gcnet.blocks.options import check_channels, check_odd, hidden_channels
from gcnet.ops.checks import check_map


class Cbam(Gated):
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
        from timm.layers.cbam import CbamModule  # here, since timm takes seconds to import

        check_channels(channels)
        hidden = hidden_channels(channels, None, reduction)
        block = CbamModule(channels, rd_channels=hidden, spatial_kernel_size=check_odd("kernel_size", kernel_size))
        super().__init__(block.to(device=device, dtype=dtype), device=device, dtype=dtype)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        return super().forward(x)
