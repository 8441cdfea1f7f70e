"""GE, a gate from the neighbourhood of every position (arXiv 1810.12348), starting as the identity."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.blocks.gated import GatedMap
from gcnet.blocks.options import check_channels, check_count, hidden_channels
from gcnet.errors import GcnetError


class GatherExciteGate(nn.Module):
    """The published block: x * sigmoid(excite(gather(x))), spread back to the size of x by nearest neighbours.

    Own code: the variants with parameters of timm's `GatherExcite` cannot be constructed in timm 1.0.31 (it passes
    device and dtype by position). Where timm's works the two are equal.
    """

    def __init__(self, channels: int, *, extent: int, learned: bool, reduction: int | None) -> None:
        super().__init__()
        self.extent = extent
        self.gather: nn.Sequential | None = None
        if learned:
            layers: list[nn.Module] = []
            for _ in range(extent.bit_length() - 1):
                layers.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False))
                layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            self.gather = nn.Sequential(*layers[:-1])
        self.excite: nn.Sequential | None = None
        if reduction is not None:
            hidden = hidden_channels(channels, reduction)
            self.excite = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.gather is not None:
            gathered = self.gather(x)
        elif self.extent == 0:
            gathered = x.mean(dim=(2, 3), keepdim=True)
        else:
            # a window of 2 extent - 1 around every extent-th position; positions outside the map do not count
            gathered = F.avg_pool2d(x, 2 * self.extent - 1, self.extent, self.extent - 1, count_include_pad=False)
        if self.excite is not None:
            gathered = self.excite(gathered)
        if self.extent != 0:
            gathered = F.interpolate(gathered, size=x.shape[2:])
        return x * gathered.sigmoid()


class GatherExcite(GatedMap):
    """Gather-excite (arXiv 1810.12348) behind `Gated`; the default is the paper's GE-theta with extent ratio 8.

    | paper | options | |
    |---|---|---|
    | GE-theta-minus | learned=False | mean over a window; no parameters but gamma |
    | GE-theta | learned=True | depth-wise 3x3 convolutions of stride 2 with batch norm |
    | GE-theta-plus | reduction=16 | two 1x1 convolutions between gather and gate |

    With extent=0 (all positions) only the mean exists: the paper's learned global gather is one convolution as large as
    the map, which ties the parameters to the input size. extent=0 with reduction=16 is squeeze-excitation.

    Args:
        channels: Channels of the map.
        extent: 2, 4, 8, ...: the gate is computed from windows of about twice this size at every extent-th position;
            0: from all positions.
        learned: Gather with convolutions instead of the mean.
        reduction: None for no excite layers, else they have channels // reduction hidden channels.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W) -> the same.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map.

    Example:
        >>> GatherExcite(32)(torch.randn(2, 32, 7, 5)).shape
        torch.Size([2, 32, 7, 5])
    """

    def __init__(
        self,
        channels: int,
        *,
        extent: int = 8,
        learned: bool = True,
        reduction: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(channels)
        if check_count("extent", extent, minimum=0) == 1 or extent & (extent - 1):
            raise GcnetError(f"extent={extent} is not allowed; use 0 (all positions) or a power of two: 2, 4, 8, ...")
        if learned and extent == 0:
            raise GcnetError("learned=True needs an extent (2, 4, 8, ...); with extent=0 use learned=False")
        block = GatherExciteGate(channels, extent=extent, learned=learned, reduction=reduction)
        super().__init__(channels, block, device=device, dtype=dtype)
