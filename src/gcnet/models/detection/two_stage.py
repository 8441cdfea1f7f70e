"""Faster, Mask and Cascade R-CNN (arXiv 1506.01497, 1703.06870, 1712.00726) on torchvision's GeneralizedRCNN."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from gcnet.models.detection.backbone import Backbone
from gcnet.models.detection.cascade import CascadeRoIHeads
from gcnet.models.detection.targets import check_targets

Sizes = list[tuple[int, int]]


class TwoStage(GeneralizedRCNN):
    """torchvision's frame of an R-CNN; labels are 0 to C-1 outside, 1 to C inside."""

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
            masks = cast(Any, self.roi_heads).has_mask()
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
        backbone = cast(Backbone, self.backbone)
        maps = backbone.maps(images)
        features = backbone.pyramid(maps)
        objectness, deltas, proposals, scores = self._proposals(images, features, sizes)
        heads = cast(RoIHeads | CascadeRoIHeads, self.roi_heads)
        if isinstance(heads, CascadeRoIHeads):
            stages = cast(list[RoIHeads], list(heads.stages))
            boxes = [output.boxes for output in heads.run(features, proposals, sizes)]
            raw = [_raw(stage, features, b, sizes) for stage, b in zip(stages, boxes, strict=True)]
            rois, logits, box_deltas = [_rois(b) for b in boxes], [r[0] for r in raw], [r[1] for r in raw]
        else:
            rois = _rois(proposals)
            logits, box_deltas = _raw(heads, features, proposals, sizes)
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
        rpn = cast(RegionProposalNetwork, self.rpn)
        levels = list(features.values())
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


def _rois(boxes: list[Tensor]) -> Tensor:
    """Boxes of all images (R, 5), the image's number first."""
    return torch.cat([torch.cat([torch.full_like(b[:, :1], i), b], dim=1) for i, b in enumerate(boxes)])


def _raw(heads: RoIHeads, features: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Logits and deltas as the weights give them, in their own order of classes."""
    x = heads.box_head(heads.box_roi_pool(features, boxes, sizes))
    return heads.box_predictor.cls_score(x), heads.box_predictor.bbox_pred(x)
