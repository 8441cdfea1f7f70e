"""Anchors of mmdetection: not rounded, and at the levels' own strides whatever the size of the map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

RATIOS = (0.5, 1.0, 2.0)


class ExactAnchors(AnchorGenerator):
    """torchvision's generator without its two roundings: that of the anchors' corners, and that of the stride, which
    it takes from the sizes of padded image and map (160 // 3 = 53 where the level's stride is 64).

    Args:
        sizes: for each level the sides of its square anchors in pixels.
        strides: for each level its stride in pixels.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], strides: Sequence[int]) -> None:
        super().__init__(tuple(map(tuple, sizes)), (RATIOS,) * len(sizes))
        self.strides = tuple(strides)

    def generate_anchors(
        self,
        scales: Sequence[float],  # type: ignore[override]
        aspect_ratios: Sequence[float],  # type: ignore[override]
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> Tensor:
        """Shape: (ratios * scales, 4), the ratios outside."""
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        high = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths, heights = ((r[:, None] * sides[None, :]).flatten() for r in (1 / high, high))
        return torch.stack([-widths, -heights, widths, heights], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The same anchors (A, 4) for every image, level after level."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        sizes = [list(level.shape[-2:]) for level in feature_maps]
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(sizes, strides))
        return [anchors] * len(image_list.image_sizes)
