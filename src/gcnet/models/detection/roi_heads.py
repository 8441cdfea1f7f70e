"""RoI heads: predictors for other orders of classes and class-agnostic boxes, and Cascade R-CNN (arXiv 1712.00726).

Inside torchvision's RoI heads class 0 is the background and boxes are regressed for each class, the background too.
Predictors with other parameters bring their outputs into that form, so that everything behind them is torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image

Sizes = list[tuple[int, int]]
BOX_HEADS = ("2fc", "4conv1fc")
_BOX_SIZE = 7

# IoU from which a box counts as an object, scale of the deltas, and weight in the loss, of the three stages.
IOU_THRESHOLDS = (0.5, 0.6, 0.7)
DELTA_SCALES = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)


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


class StageOutput(NamedTuple):
    """What one stage says of its boxes: logits (R, C + 1) with the background first, deltas (R, 4), boxes per image."""

    boxes: list[Tensor]
    logits: Tensor
    deltas: Tensor


class CascadeRoIHeads(nn.Module):
    """Three torchvision RoI heads with class-agnostic boxes; at inference their logits are averaged (mmdetection's
    way, the paper averages probabilities), boxes are the last stage's, masks the mean of the three heads' at these.

    Args:
        stages: each with its own matcher, coder, box head and predictor and, if masks are wanted, mask head.
    """

    stages: Any  # torchvision declares the parts of its mask head as None

    def __init__(self, stages: Iterable[RoIHeads]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def has_mask(self) -> bool:
        return self.stages[0].has_mask()

    def forward(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes, targets: Any = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections (labels from 1) in evaluation mode, losses in training mode; the other of the two is empty."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        outputs = self.run(features, proposals, image_shapes)
        last = outputs[-1]
        mean = torch.stack([output.logits for output in outputs]).mean(0)
        every_class = last.deltas.repeat(1, mean.shape[1])
        boxes, scores, labels = self.stages[-1].postprocess_detections(mean, every_class, last.boxes, image_shapes)
        result = [{"boxes": b, "labels": lab, "scores": s} for b, lab, s in zip(boxes, labels, scores, strict=True)]
        if self.has_mask():
            for found, masks in zip(result, self.masks(features, boxes, labels, image_shapes), strict=True):
                found["masks"] = masks
        return result, {}

    def run(self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes) -> list[StageOutput]:
        """The three stages one after the other, each on the boxes that the one before has moved."""
        outputs: list[StageOutput] = []
        boxes = proposals
        for stage in self.stages:
            if outputs:
                boxes = self._moved(outputs[-1], len(outputs) - 1, image_shapes)
            logits, deltas = self._predict(stage, features, boxes, image_shapes)
            outputs.append(StageOutput(boxes, logits, deltas[:, :4]))
        return outputs

    def masks(
        self, features: dict[str, Tensor], boxes: list[Tensor], labels: list[Tensor], image_shapes: Sizes
    ) -> list[Tensor]:
        """For each image (N, 1, 28, 28): the mean over the stages of the probabilities of the own class."""
        pooled = self.stages[0].mask_roi_pool(features, boxes, image_shapes)
        per_stage = [maskrcnn_inference(stage.mask_predictor(stage.mask_head(pooled)), labels) for stage in self.stages]
        return [torch.stack(probabilities).mean(0) for probabilities in zip(*per_stage, strict=True)]

    def _losses(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes, targets: Any
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        boxes = proposals
        for k, (stage, weight) in enumerate(zip(self.stages, LOSS_WEIGHTS, strict=True)):
            boxes, matched, labels, regression = stage.select_training_samples(boxes, targets)
            logits, deltas = self._predict(stage, features, boxes, image_shapes)
            classifier, box = fastrcnn_loss(logits, deltas, labels, regression)
            losses |= {f"loss_classifier_{k}": weight * classifier, f"loss_box_reg_{k}": weight * box}
            if self.has_mask():
                foreground = [torch.where(label > 0)[0] for label in labels]
                pooled_at = [b[index] for b, index in zip(boxes, foreground, strict=True)]
                pooled = stage.mask_roi_pool(features, pooled_at, image_shapes)
                losses[f"loss_mask_{k}"] = weight * maskrcnn_loss(
                    stage.mask_predictor(stage.mask_head(pooled)),
                    pooled_at,
                    [target["masks"] for target in targets],
                    [target["labels"] for target in targets],
                    [m[index] for m, index in zip(matched, foreground, strict=True)],
                )
            if k + 1 < len(self.stages):
                boxes = self._moved(StageOutput(boxes, logits, deltas[:, :4].detach()), k, image_shapes)
        return losses

    def _predict(
        self, stage: Any, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes
    ) -> tuple[Tensor, Tensor]:
        return stage.box_predictor(stage.box_head(stage.box_roi_pool(features, boxes, image_shapes)))

    def _moved(self, output: StageOutput, stage: int, image_shapes: Sizes) -> list[Tensor]:
        """The boxes where a stage has moved them, clipped to their images."""
        moved = self.stages[stage].box_coder.decode(output.deltas, output.boxes).reshape(-1, 4)
        per_image = moved.split([len(boxes) for boxes in output.boxes])
        return [clip_boxes_to_image(boxes, size) for boxes, size in zip(per_image, image_shapes, strict=True)]
