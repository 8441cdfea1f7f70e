"""Any shape-keeping block behind a learnable scalar that starts at zero: the identity at the first step."""

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map


class Gated(nn.Module):
    """x + gamma * (block(x) - x) with one learnable scalar gamma = 0.

    A gate such as CBAM's starts at about one half, which scales a pretrained branch: the comparison with other blocks
    is then between different starting points. Behind gamma = 0 every block starts at the same place, bitwise (as long
    as its output is finite), and gamma = 1 is the block as published. All parameters of the block receive gradients
    from the first step on; they are zero until gamma has moved.

    Args:
        block: Maps (B, C, *spatial) to the same shape and leaves its input untouched.
        device: Of gamma.
        dtype: Of gamma.

    Shape:
        x (B, C, *spatial) -> the same. An empty batch passes by the block.

    Dtype:
        That of x, also where autocast makes the block answer in another one.

    Raises:
        ValueError: the block's output has another shape than its input.

    Example:
        >>> block = Gated(nn.Conv2d(8, 8, 3, padding=1))
        >>> x = torch.randn(2, 8, 5, 5)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(
        self, block: nn.Module, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.block = block
        self.gamma = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:  # some published blocks reshape with -1, which an empty batch leaves undefined
            return (x + self.gamma * x).to(x.dtype)
        y = self.block(x)
        if y.shape != x.shape:
            raise GcnetError(
                f"{type(self.block).__name__} turned shape {tuple(x.shape)} into {tuple(y.shape)}; "
                "a gated block must keep the shape"
            )
        return (x + self.gamma * (y - x)).to(x.dtype)


class GatedMap(Gated):
    """A gated block on (B, channels, H, W) maps alone."""

    def __init__(
        self, channels: int, block: nn.Module, *, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__(block.to(device=device, dtype=dtype), device=device, dtype=dtype)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        return super().forward(x)
