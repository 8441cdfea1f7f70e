"""The two ways to be a detector: torchvision's parts as they are, or those that compute what mmdetection computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from gcnet.models.detection import exact
from gcnet.models.detection.detectors import OneStage


@dataclass(frozen=True)
class Preset:
    """The parts in which the two differ.

    Attributes:
        anchors: (sides per level, stride per level) -> generator.
        p6p7: (channels of C5, channels of the pyramid) -> the levels above P5 of RetinaNet.
        background_last: the order of the rows in the box predictor; with it the mask predictor has no background.
        fixed_statistics: norm="frozen" fixes the statistics alone, not the norms' weights.
        train_proposals: per level before NMS and per image after it, in training.
        retinanet_detections: the most detections per image of RetinaNet.
    """

    anchors: Callable[[Sequence[Sequence[float]], Sequence[int]], AnchorGenerator]
    coder: Callable[[tuple[float, float, float, float]], BoxCoder]
    rpn: type[RegionProposalNetwork]
    roi_pool: Callable[[int], nn.Module]
    roi_heads: type[RoIHeads]
    transform: type[GeneralizedRCNNTransform]
    retinanet: type[OneStage]
    p6p7: Callable[[int, int], LastLevelP6P7]
    background_last: bool
    fixed_statistics: bool
    train_proposals: tuple[int, int]
    retinanet_detections: int


PRESETS: dict[str, Preset] = {
    "torchvision": Preset(
        anchors=lambda sizes, strides: AnchorGenerator(
            tuple(tuple(map(int, sides)) for sides in sizes), (exact.RATIOS,) * len(sizes)
        ),
        coder=BoxCoder,
        rpn=RegionProposalNetwork,
        roi_pool=lambda size: MultiScaleRoIAlign(["0", "1", "2", "3"], size, sampling_ratio=2),
        roi_heads=RoIHeads,
        transform=GeneralizedRCNNTransform,
        retinanet=OneStage,
        p6p7=lambda c5, channels: LastLevelP6P7(channels, channels),
        background_last=False,
        fixed_statistics=False,
        train_proposals=(2000, 2000),
        retinanet_detections=300,
    ),
    "mmdet": Preset(
        anchors=exact.ExactAnchors,
        coder=exact.TwoSidedBoxCoder,
        rpn=exact.ExactRPN,
        roi_pool=exact.AlignedRoIPool,
        roi_heads=exact.ExactRoIHeads,
        transform=exact.RoundedTransform,
        retinanet=exact.ExactOneStage,
        p6p7=exact.PlainP6P7,
        background_last=True,
        fixed_statistics=True,
        train_proposals=(2000, 1000),
        retinanet_detections=100,
    ),
}
