"""Cascade R-CNN (arXiv 1712.00726): three RoI heads in a row, each trained on boxes that fit better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image

Sizes = list[tuple[int, int]]

# IoU from which a box counts as an object, scale of the deltas, and weight in the loss, of the three stages.
IOU_THRESHOLDS = (0.5, 0.6, 0.7)
DELTA_SCALES = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class StageOutput:
    """What one stage says of its boxes: logits (R, C + 1) with the background first, deltas (R, 4), boxes per image."""

    boxes: list[Tensor]
    logits: Tensor
    deltas: Tensor


class CascadeRoIHeads(nn.Module):
    """Three torchvision RoI heads with class-agnostic boxes; at inference their logits are averaged (mmdetection's
    way, the paper averages probabilities), boxes are the last stage's, masks the mean of the three heads' at these.

    Args:
        stages: each with its own matcher, coder, box head and predictor and, if masks are wanted, mask head.
        loss_weights: one for each stage.
    """

    def __init__(self, stages: Iterable[RoIHeads], *, loss_weights: Sequence[float] = LOSS_WEIGHTS) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.loss_weights = tuple(loss_weights)

    def has_mask(self) -> bool:
        return self._stages()[0].has_mask()

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
        boxes, scores, labels = self._stages()[-1].postprocess_detections(mean, every_class, last.boxes, image_shapes)
        result = [{"boxes": b, "labels": lab, "scores": s} for b, lab, s in zip(boxes, labels, scores, strict=True)]
        if self.has_mask():
            for found, masks in zip(result, self.masks(features, boxes, labels, image_shapes), strict=True):
                found["masks"] = masks
        return result, {}

    def run(self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes) -> list[StageOutput]:
        """The three stages one after the other, each on the boxes that the one before has moved."""
        outputs: list[StageOutput] = []
        boxes = proposals
        for stage in self._stages():
            if outputs:
                boxes = self._moved(outputs[-1], len(outputs) - 1, image_shapes)
            logits, deltas = self._predict(stage, features, boxes, image_shapes)
            outputs.append(StageOutput(boxes, logits, deltas[:, :4]))
        return outputs

    def masks(
        self, features: dict[str, Tensor], boxes: list[Tensor], labels: list[Tensor], image_shapes: Sizes
    ) -> list[Tensor]:
        """For each image (N, 1, 28, 28): the mean over the stages of the probabilities of the own class."""
        pooled = self._stages()[0].mask_roi_pool(features, boxes, image_shapes)
        per_stage = [
            maskrcnn_inference(stage.mask_predictor(stage.mask_head(pooled)), labels) for stage in self._stages()
        ]
        return [torch.stack(probabilities).mean(0) for probabilities in zip(*per_stage, strict=True)]

    def _losses(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Sizes, targets: Any
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        boxes = proposals
        for k, (stage, weight) in enumerate(zip(self._stages(), self.loss_weights, strict=True)):
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

    def _stages(self) -> list[Any]:  # torchvision declares the parts of its mask head as None
        return list(self.stages)

    def _predict(
        self, stage: Any, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sizes
    ) -> tuple[Tensor, Tensor]:
        return stage.box_predictor(stage.box_head(stage.box_roi_pool(features, boxes, image_shapes)))

    def _moved(self, output: StageOutput, stage: int, image_shapes: Sizes) -> list[Tensor]:
        """The boxes where a stage has moved them, clipped to their images."""
        moved = self._stages()[stage].box_coder.decode(output.deltas, output.boxes).reshape(-1, 4)
        per_image = moved.split([len(boxes) for boxes in output.boxes])
        return [clip_boxes_to_image(boxes, size) for boxes, size in zip(per_image, image_shapes, strict=True)]
