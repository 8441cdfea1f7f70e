"""torchvision's deformable convolution with the small convolution that tells it where to sample."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from gcnet.surgery.probe import is_channels_last


class DeformableConv2d(DeformConv2d):
    """A 3x3 convolution made deformable: `conv_offset` (zero at the start) gives offsets, and for v2 mask logits.

    Args:
        conv: The convolution, whose weight and bias are taken over as they are.
        modulated: Whether samples are weighted by a mask (v2).
        mask_gate: "identity" (2 sigmoid) or "sigmoid".
        deform_groups: G, groups of input channels with offsets of their own.

    Shape:
        x (B, C, H, W) -> (B, C', H', W'); conv_offset: (B, 18 G or 27 G, H', W'), per tap the
        offsets (y, x), then the masks.
    """

    def __init__(
        self, conv: nn.Conv2d, modulated: bool, mask_gate: Literal["identity", "sigmoid"], deform_groups: int
    ) -> None:
        shape: dict[str, Any] = {
            "kernel_size": 3,
            "stride": conv.stride,
            "padding": conv.padding,
            "dilation": conv.dilation,
        }
        with torch.device("meta"):
            super().__init__(conv.in_channels, conv.out_channels, groups=conv.groups, bias=False, **shape)
        self.weight = conv.weight
        self.bias = conv.bias  # type: ignore[assignment]
        self.modulated, self.mask_gate = modulated, mask_gate
        offset = nn.Conv2d(conv.in_channels, deform_groups * (27 if modulated else 18), **shape)
        nn.init.zeros_(offset.weight)
        assert offset.bias is not None
        nn.init.zeros_(offset.bias)
        offset = offset.to(device=conv.weight.device, dtype=conv.weight.dtype)
        self.conv_offset = offset.to(memory_format=torch.channels_last) if is_channels_last(conv.weight) else offset

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The offsets and the mask come from the map itself."""
        offset = self.conv_offset(x)
        if not self.modulated:
            return super().forward(x, offset)
        offset, logits = offset.tensor_split([offset.shape[1] // 3 * 2], 1)
        mask = logits.sigmoid()
        return super().forward(x, offset, 2 * mask if self.mask_gate == "identity" else mask)

    def extra_repr(self) -> str:
        return f"modulated={self.modulated}" + (f", mask_gate={self.mask_gate}" if self.modulated else "")
