"""Heads on the pooled boxes: torchvision's, also for other orders of classes and for class-agnostic boxes.

Inside torchvision's RoI heads class 0 is the background and boxes are regressed for each class, the background too.
Predictors with other parameters bring their outputs into that form, so that everything behind them is torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

BOX_HEADS = ("2fc", "4conv1fc")
_BOX_SIZE = 7


class BoxPredictor(FastRCNNPredictor):
    """Logits and deltas of a box.

    Args:
        in_channels: of the box head's output.
        num_classes: foreground classes.
        background_last: the background is the last row of the weights (mmdetection) and no box is regressed for it;
            else it is the first and has a box (torchvision).
        class_agnostic: one box for all classes (Cascade R-CNN).
    """

    def __init__(self, in_channels: int, num_classes: int, *, background_last: bool, class_agnostic: bool) -> None:
        super().__init__(in_channels, num_classes + 1)
        self.background_last = background_last
        self.class_agnostic = class_agnostic
        if class_agnostic or background_last:
            self.bbox_pred = nn.Linear(in_channels, 4 if class_agnostic else 4 * num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: x (R, in_channels) -> logits (R, C + 1), deltas (R, 4 (C + 1)), the background first."""
        logits, deltas = super().forward(x)
        if self.class_agnostic:
            deltas = deltas.repeat(1, logits.shape[1])
        elif self.background_last:
            deltas = F.pad(deltas, (4, 0))
        return logits.roll(1, dims=1) if self.background_last else logits, deltas


class MaskPredictor(MaskRCNNPredictor):
    """torchvision's mask predictor without a mask for the background (mmdetection)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Shape: (R, C + 1, 28, 28), zeros first."""
        return F.pad(super().forward(x), (0, 0, 0, 0, 1, 0))


def build_box_head(kind: str, in_channels: int, channels: int, norm: Callable[..., nn.Module] | None) -> nn.Module:
    """Two linear layers, or four 3x3 convolutions of `in_channels` and a linear layer of `channels`."""
    if kind == "2fc":
        return TwoMLPHead(in_channels * _BOX_SIZE**2, channels)
    return FastRCNNConvFCHead((in_channels, _BOX_SIZE, _BOX_SIZE), [in_channels] * 4, [channels], norm_layer=norm)
