"""CCNet's block: attention along row and column, repeated so that everything is seen (arXiv 1811.11721)."""

import torch
from torch import Tensor, nn

from gcnet import ops
from gcnet.blocks.options import check_count, hidden_channels
from gcnet.ops.checks import check_map


class CrissCross(nn.Module):
    """Recurrent criss-cross attention (arXiv 1811.11721): x <- x + gamma * attend(x), `recurrence` times; gamma = 0.

    As in the authors' code: one set of weights for all rounds, no scaling of the logits, values keep all channels,
    and the position itself counts once among the H + W - 1. Two rounds connect every pair of positions. What stands
    around the block in their segmentation head (two 3x3 convolutions, the concatenation with its input) is not part
    of it.

    Args:
        channels: Channels of the map.
        reduction: Queries and keys have channels // reduction channels.
        recurrence: Number of rounds.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W) -> the same.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map.

    Example:
        >>> CrissCross(32)(torch.randn(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 8,
        recurrence: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.channels = channels
        self.recurrence = check_count("recurrence", recurrence)
        self.query = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.key = nn.Conv2d(channels, hidden, 1, device=device, dtype=dtype)
        self.value = nn.Conv2d(channels, channels, 1, device=device, dtype=dtype)
        self.gamma = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        for _ in range(self.recurrence):
            x = (x + self.gamma * ops.criss_cross(self.query(x), self.key(x), self.value(x))).to(x.dtype)
        return x
