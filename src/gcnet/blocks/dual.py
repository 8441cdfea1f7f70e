"""DANet's block: position attention and channel attention side by side (arXiv 1809.02983)."""

import torch
from torch import Tensor, nn

from gcnet import ops
from gcnet.blocks.nonlocal_block import as_map, positions
from gcnet.blocks.options import hidden_channels
from gcnet.ops.checks import check_map
from gcnet.ops.precision import accumulate_dtype, without_autocast


class DualAttention(nn.Module):
    """Dual attention (arXiv 1809.02983): x + position_gamma * position(x) + channel_gamma * channel(x), from 0 each.

    `position` is embedded-Gaussian non-local attention without scaling, whose values keep all channels; `channel`
    mixes the channels by a C x C softmax of their negated inner products over the positions, so a channel attends to
    those least like it. That sign is the authors' code (softmax of row maximum minus product, in which the maximum
    cancels); the paper's equation has the other one. Their head runs each branch on its own 3x3 convolutions and adds
    the branches after two more; here both read the same map and the convolutions are left to the model around the
    block.

    Args:
        channels: Channels of the map.
        reduction: Queries and keys have channels // reduction channels.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, *spatial) with 1, 2 or 3 spatial dimensions -> the same.

    Raises:
        ValueError: an option out of its range, or x is no map of `channels` channels.

    Example:
        >>> DualAttention(32)(torch.randn(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.channels = channels
        self.query = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.key = nn.Linear(channels, hidden, device=device, dtype=dtype)
        self.value = nn.Linear(channels, channels, device=device, dtype=dtype)
        self.position_gamma = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        self.channel_gamma = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def context(self, x: Tensor) -> Tensor:
        """What is added to x, (B, C, *spatial)."""
        x_BPC = positions(x)
        position_BPC = ops.nonlocal_attend(
            self.query(x_BPC), self.key(x_BPC), self.value(x_BPC), pairwise="embedded_gaussian"
        )
        return as_map(self.position_gamma * position_BPC + self.channel_gamma * _attend_channels(x_BPC), x)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return x + self.context(x).to(x.dtype)


def _attend_channels(x_BPC: Tensor) -> Tensor:
    """y_c = sum_d softmax_d(-x_c . x_d) x_d. The products sum over all positions: float32 or wider."""
    with without_autocast(x_BPC):
        wide_BPC = x_BPC.to(accumulate_dtype(x_BPC))
        energy_BCC = wide_BPC.transpose(1, 2) @ wide_BPC
        return (wide_BPC @ (-energy_BCC).softmax(dim=2).transpose(1, 2)).to(x_BPC.dtype)
