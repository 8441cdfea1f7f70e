"""RoIAlign over the levels of a pyramid as mmdetection has it: half-pixel centres, as many samples as the box needs.

R boxes of all images, C channels, S output size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32)
# A box of this side or less goes to the finest level, one of twice the side to the next.
FINEST_SIDE = 56


def pyramid_levels(boxes: Tensor) -> Tensor:
    """The level (0 to 3) that each box (R, 4) is pooled from: floor(log2(sqrt(area) / 56)), limited."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return torch.log2(side / FINEST_SIDE + 1e-6).floor().clamp(0, len(STRIDES) - 1).long()


class AlignedRoIPool(nn.Module):
    """RoIAlign with `aligned=True` and adaptive sampling (arXiv 1703.06870, corrected by half a pixel).

    torchvision's `MultiScaleRoIAlign` has neither, and adds its epsilon outside of the logarithm.
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """Pool the boxes (in pixels of the padded batch) of all images from the maps "0" to "3".

        Shape: (R, C, S, S), image after image.
        """
        maps = [features[str(level)] for level in range(len(STRIDES))]
        images = [torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)]
        rois = torch.cat([torch.cat(images), torch.cat(boxes)], dim=1)
        levels = pyramid_levels(rois[:, 1:])
        pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], self.output_size, self.output_size)
        for level, (map_BCHW, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            here = torch.where(levels == level)[0]
            source = map_BCHW.to(rois.dtype)  # boxes stay in float32 when maps are of 16 bits
            values = roi_align(source, rois[here], self.output_size, 1 / stride, sampling_ratio=-1, aligned=True)
            pooled[here] = values.to(pooled.dtype)
        return pooled

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
