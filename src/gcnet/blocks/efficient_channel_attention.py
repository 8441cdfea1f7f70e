"""ECA, a channel gate from one small convolution along the channels (arXiv 1910.03151), starting as the identity."""

import torch
from torch import Tensor

from gcnet.blocks.gated import Gated
from gcnet.blocks.options import check_channels, check_odd
from gcnet.ops.checks import check_map


class EfficientChannelAttention(Gated):
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
        from timm.layers import EcaModule  # here, since timm takes seconds to import

        check_channels(channels)
        if kernel_size is None:
            block = EcaModule(channels)
        else:
            block = EcaModule(kernel_size=check_odd("kernel_size", kernel_size))
        super().__init__(block.to(device=device, dtype=dtype), device=device, dtype=dtype)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        return super().forward(x)
