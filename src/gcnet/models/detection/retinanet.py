"""RetinaNet (arXiv 1708.02002): torchvision's, with labels from 0 and a trace, and mmdetection's form of it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from gcnet.models.detection.backbone import Backbone
from gcnet.models.detection.boxes import batched_nms, has_area, in_float
from gcnet.models.detection.targets import check_targets


class OneStage(RetinaNet):
    """torchvision's RetinaNet; labels are 0 to C-1 outside, `first_label` to first_label + C-1 inside."""

    backbone: Backbone
    num_classes: int
    first_label = 1  # torchvision's logits have a row for the background, which is never trained

    def forward(self, images: Any, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses in training mode, else for each image boxes, labels, scores."""
        if self.training:
            return super().forward(list(images), check_targets(images, targets, self.num_classes, self.first_label))
        return [self._outside(found) for found in cast(list[dict[str, Tensor]], super().forward(list(images)))]

    @torch.no_grad()
    def trace(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> dict[str, Any]:
        """What every part computes, for a batch that is normalised and padded already.

        Args:
            images: (B, 3, H, W).
            image_sizes: height and width of each image without its padding.

        Returns:
            `backbone` [C2..C5], `fpn` [P3..P7], `rpn` {cls_score, bbox_pred} (the dense head, raw, per level), `logits`
            (B, A, K) and `deltas` (B, A, 4) of all anchors, `detections` [{boxes, scores, labels}] in pixels of the
            batch; `proposals`, `rois` and `masks` are empty.
        """
        sizes = [(int(height), int(width)) for height, width in image_sizes]
        maps = self.backbone.maps(images)
        levels = list(self.backbone.pyramid(maps).values())
        classify, regress = (cast(Any, head) for head in (self.head.classification_head, self.head.regression_head))
        outputs = self.head(levels)
        anchors = self.anchor_generator(ImageList(images, sizes), levels)
        per_cell = self.anchor_generator.num_anchors_per_location()
        counts = [n * level.shape[-2] * level.shape[-1] for n, level in zip(per_cell, levels, strict=True)]
        split = {key: list(value.split(counts, dim=1)) for key, value in outputs.items()}
        found = self.postprocess_detections(split, [list(a.split(counts)) for a in anchors], sizes)
        return {
            "backbone": maps,
            "fpn": levels,
            "rpn": {
                "cls_score": [classify.cls_logits(classify.conv(level)) for level in levels],
                "bbox_pred": [regress.bbox_reg(regress.conv(level)) for level in levels],
            },
            "proposals": [],
            "rois": images.new_zeros(0, 5),
            "logits": outputs["cls_logits"],
            "deltas": outputs["bbox_regression"],
            "detections": [self._outside(detections) for detections in found],
            "masks": [],
        }

    def _outside(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        real = found["labels"] >= self.first_label
        return {key: value[real] for key, value in (found | {"labels": found["labels"] - self.first_label}).items()}

    def head_names(self) -> list[str]:
        """The layers whose size follows the number of classes."""
        return ["head.classification_head.cls_logits"]


class ExactOneStage(OneStage):
    """RetinaNet with mmdetection's choice of detections: NMS per class by mmcv's offsets, no empty boxes."""

    first_label = 0

    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Shapes: per level logits (B, A, C), deltas (B, A, 4); per image and level anchors (A, 4)."""
        levels = list(zip(head_outputs["cls_logits"], head_outputs["bbox_regression"], strict=True))
        detections = []
        for image, (anchors_per_level, size) in enumerate(zip(anchors, image_shapes, strict=True)):
            found = [
                self._best(logits[image], deltas[image], level_anchors)
                for (logits, deltas), level_anchors in zip(levels, anchors_per_level, strict=True)
            ]
            boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
            boxes = clip_boxes_to_image(boxes, size)
            valid = has_area(boxes)
            boxes, scores, labels = boxes[valid], scores[valid], labels[valid]
            kept = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
            detections.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]})
        return detections

    def _best(self, logits_AC: Tensor, deltas_A4: Tensor, anchors_A4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores, labels of one level: those above the threshold, the `topk_candidates` best of them."""
        scores_AC = in_float(logits_AC).sigmoid()
        rows, labels = torch.where(scores_AC > self.score_thresh)
        scores, best = scores_AC[rows, labels].topk(min(self.topk_candidates, len(rows)))
        rows, labels = rows[best], labels[best]
        return self.box_coder.decode_single(deltas_A4[rows], anchors_A4[rows]), scores, labels


class PlainP6P7(LastLevelP6P7):
    """P6 from C5, P7 from P6 without the ReLU that torchvision has between them (mmdetection's `on_input`)."""

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(c[-1])
        return [*p, p6, self.p7(p6)], [*names, "p6", "p7"]
