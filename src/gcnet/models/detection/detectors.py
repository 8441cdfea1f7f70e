"""The two kinds of detector on torchvision's frames: labels from 0, targets checked with words, a trace of all parts.

RetinaNet: arXiv 1708.02002; Faster, Mask and Cascade R-CNN: 1506.01497, 1703.06870, 1712.00726.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from gcnet.errors import GcnetError
from gcnet.models.detection.backbone import Backbone
from gcnet.models.detection.roi_heads import CascadeRoIHeads, Sizes


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
    def trace(self, images: Tensor, image_sizes: Sizes) -> dict[str, Any]:
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


class TwoStage(GeneralizedRCNN):
    """torchvision's frame of an R-CNN; labels are 0 to C-1 outside, 1 to C inside."""

    backbone: Backbone
    rpn: RegionProposalNetwork
    roi_heads: Any

    def __init__(
        self,
        backbone: Backbone,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads | CascadeRoIHeads,
        transform: nn.Module,
        *,
        num_classes: int,
    ) -> None:
        super().__init__(backbone, rpn, roi_heads, transform)
        self.num_classes = num_classes

    def forward(self, images: Any, targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses in training mode, else for each image boxes, labels, scores and perhaps masks (N, 1, H, W)."""
        if self.training:
            masks = self.roi_heads.has_mask()
            return super().forward(list(images), check_targets(images, targets, self.num_classes, 1, masks=masks))
        return [_outside(found) for found in cast(list[dict[str, Tensor]], super().forward(list(images)))]

    @torch.no_grad()
    def trace(self, images: Tensor, image_sizes: Sizes) -> dict[str, Any]:
        """What every part computes, for a batch that is normalised and padded already.

        Args:
            images: (B, 3, H, W).
            image_sizes: height and width of each image without its padding.

        Returns:
            `backbone` [C2..C5], `fpn` [P2..P6], `rpn` {cls_score, bbox_pred} (raw, per level), `proposals` [{boxes,
            scores}], `rois` (R, 5), `logits` and `deltas` (R, ...) as the layers give them (in a cascade these three
            are lists with one entry for each stage), `detections` [{boxes, scores, labels}] in pixels of the batch,
            `masks` [(N, 28, 28)] probabilities of the own class, in the boxes.
        """
        sizes = [(int(height), int(width)) for height, width in image_sizes]
        maps = self.backbone.maps(images)
        features = self.backbone.pyramid(maps)
        objectness, deltas, proposals, scores = self._proposals(images, features, sizes)
        heads = self.roi_heads
        if isinstance(heads, CascadeRoIHeads):
            boxes = [output.boxes for output in heads.run(features, proposals, sizes)]
            raw = [_raw(stage, features, b, sizes) for stage, b in zip(heads.stages, boxes, strict=True)]
            rois, logits, box_deltas = (list(stages) for stages in zip(*raw, strict=True))
        else:
            rois, logits, box_deltas = _raw(heads, features, proposals, sizes)
        found, _ = heads(features, proposals, sizes)
        return {
            "backbone": maps,
            "fpn": list(features.values()),
            "rpn": {"cls_score": objectness, "bbox_pred": deltas},
            "proposals": [{"boxes": b, "scores": s} for b, s in zip(proposals, scores, strict=True)],
            "rois": rois,
            "logits": logits,
            "deltas": box_deltas,
            "detections": [{key: _outside(f)[key] for key in ("boxes", "scores", "labels")} for f in found],
            "masks": [f["masks"][:, 0] for f in found if "masks" in f],
        }

    def _proposals(
        self, images: Tensor, features: dict[str, Tensor], sizes: Sizes
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """torchvision's RPN step by step: it keeps its raw outputs and the scores of the proposals to itself."""
        rpn, levels = self.rpn, list(features.values())
        objectness, deltas = rpn.head(levels)
        anchors = rpn.anchor_generator(ImageList(images, sizes), levels)
        flat_objectness, flat_deltas = concat_box_prediction_layers(list(objectness), list(deltas))
        boxes = rpn.box_coder.decode(flat_deltas, anchors).view(len(images), -1, 4)
        counts = [o[0].numel() for o in objectness]
        proposals, scores = rpn.filter_proposals(boxes, flat_objectness, sizes, counts)
        return objectness, deltas, proposals, scores

    def head_names(self) -> list[str]:
        """The layers whose size follows the number of classes."""
        ends = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        return [name for name, _ in self.named_modules() if name.endswith(ends)]


def _outside(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return found | {"labels": found["labels"] - 1}


def _raw(heads: Any, features: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (R, 5), the image's number first; logits and deltas as the weights give them, in their own order."""
    rois = torch.cat([torch.cat([torch.full_like(b[:, :1], i), b], dim=1) for i, b in enumerate(boxes)])
    x = heads.box_head(heads.box_roi_pool(features, boxes, sizes))
    return rois, heads.box_predictor.cls_score(x), heads.box_predictor.bbox_pred(x)


def check_targets(
    images: Sequence[Tensor],
    targets: list[dict[str, Tensor]] | None,
    num_classes: int,
    first_label: int,
    *,
    masks: bool = False,
) -> list[dict[str, Tensor]]:
    """The targets with labels as torchvision counts them.

    Raises:
        ValueError: naming the target and what is wrong with it.
    """
    if targets is None or len(targets) != len(images):
        given = "none" if targets is None else str(len(targets))
        raise GcnetError(f"targets: {given} for {len(images)} images; training needs one dictionary for each image")
    return [
        target | {"labels": _labels(i, target, num_classes, masks) + first_label} for i, target in enumerate(targets)
    ]


def _labels(i: int, target: dict[str, Tensor], num_classes: int, masks: bool) -> Tensor:
    absent = [key for key in ("boxes", "labels", *(["masks"] if masks else [])) if key not in target]
    if absent:
        raise GcnetError(f"targets[{i}] has no {' and no '.join(absent)}; it has {', '.join(target) or 'nothing'}")
    boxes, labels = target["boxes"], target["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise GcnetError(
            f"targets[{i}]['boxes'] is {boxes.dtype} {tuple(boxes.shape)}; expected float (N, 4): x1, y1, x2, y2"
        )
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        raise GcnetError(
            f"targets[{i}]['labels'] is {labels.dtype} {tuple(labels.shape)}; expected int64 ({len(boxes)},)"
        )
    if masks and (target["masks"].ndim != 3 or len(target["masks"]) != len(boxes)):
        raise GcnetError(f"targets[{i}]['masks'] is {tuple(target['masks'].shape)}; expected ({len(boxes)}, H, W)")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise GcnetError(
            f"targets[{i}]['labels'] holds {int(labels.min())} to {int(labels.max())}; allowed are 0 to "
            f"{num_classes - 1} (num_classes={num_classes}, the background is not counted)"
        )
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(1)
    if empty.any():
        first = int(torch.where(empty)[0][0])
        raise GcnetError(
            f"targets[{i}]['boxes'][{first}] is {boxes[first].tolist()}, which has no area; boxes are x1, y1, x2, y2 "
            "with x1 < x2 and y1 < y2; leave empty ones out"
        )
    return labels
