"""Parts of torchvision's detectors that compute what mmdetection computes.

R boxes of all images, C channels, S output size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import clip_boxes_to_image, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from gcnet.models.detection.backbone import STRIDES
from gcnet.models.detection.boxes import batched_nms, has_area, in_float, paste_masks, select_detections
from gcnet.models.detection.detectors import OneStage, Sizes

RATIOS = (0.5, 1.0, 2.0)
# A box of this side or less goes to the finest level, one of twice the side to the next.
FINEST_SIDE = 56


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


class TwoSidedBoxCoder(BoxCoder):
    """torchvision's coder, which limits how much a box may grow (1000 / 16), with the same limit on shrinking."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Shapes: rel_codes (N, 4 K), boxes (N, 4) -> (N, 4 K)."""
        rel_codes = in_float(rel_codes)  # bfloat16 would round a coordinate of 1000 to a multiple of 4
        _, _, width, height = self.weights
        limit = self.bbox_xform_clip
        lowest = rel_codes.new_tensor([-math.inf, -math.inf, -limit * width, -limit * height])
        return super().decode_single(torch.maximum(rel_codes, lowest.repeat(rel_codes.shape[1] // 4)), boxes)


class ExactRPN(RegionProposalNetwork):
    """torchvision's RPN; the best of each level, clipped, without empty boxes, NMS per level by mmcv's offsets."""

    def filter_proposals(
        self, proposals: Tensor, objectness: Tensor, image_shapes: Sizes, num_anchors_per_level: list[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Shapes: proposals (B, A, 4), objectness (B * A, 1) -> for each image boxes (K, 4) and scores (K,)."""
        scores_BA = in_float(objectness.detach()).reshape(len(proposals), -1).sigmoid()
        boxes, scores = [], []
        for boxes_A4, scores_A, size in zip(proposals, scores_BA, image_shapes, strict=True):
            best, levels, start = [], [], 0
            for level, count in enumerate(num_anchors_per_level):
                kept = scores_A[start : start + count].topk(min(count, self.pre_nms_top_n())).indices
                best.append(kept + start)
                levels.append(torch.full_like(kept, level))
                start += count
            index, level = torch.cat(best), torch.cat(levels)
            candidates = clip_boxes_to_image(boxes_A4[index], size)
            valid = has_area(candidates)
            candidates, found, level = candidates[valid], scores_A[index][valid], level[valid]
            kept = batched_nms(candidates, found, level, self.nms_thresh)[: self.post_nms_top_n()]
            boxes.append(candidates[kept])
            scores.append(found[kept])
        return boxes, scores


class PlainP6P7(LastLevelP6P7):
    """P6 from C5, P7 from P6 without the ReLU that torchvision has between them (mmdetection's `on_input`)."""

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(c[-1])
        return [*p, p6, self.p7(p6)], [*names, "p6", "p7"]


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

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: Sizes) -> Tensor:
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


class ExactRoIHeads(RoIHeads):
    """torchvision's RoI heads with mmdetection's last step: no box is too small, NMS per class by mmcv's offsets."""

    def postprocess_detections(
        self, class_logits: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes: Sizes
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Boxes, scores and labels (from 1) of each image. Shapes: class_logits (R, C + 1), box_regression (R, ...)."""
        counts = [len(boxes) for boxes in proposals]
        scores_RC = in_float(class_logits).softmax(-1)[:, 1:]
        boxes = self.box_coder.decode(box_regression, proposals)
        boxes_RC4 = boxes.reshape(len(class_logits), box_regression.shape[1] // 4, 4)[:, 1:]  # R may be 0
        found = [
            select_detections(
                clip_boxes_to_image(boxes, size),
                scores,
                score_threshold=self.score_thresh,
                iou_threshold=self.nms_thresh,
                limit=self.detections_per_img,
            )
            for boxes, scores, size in zip(boxes_RC4.split(counts), scores_RC.split(counts), image_shapes, strict=True)
        ]
        return [f[0] for f in found], [f[1] for f in found], [f[2] + 1 for f in found]


class ExactOneStage(OneStage):
    """RetinaNet with mmdetection's choice of detections: NMS per class by mmcv's offsets, no empty boxes."""

    first_label = 0

    def postprocess_detections(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: Sizes
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


class RoundedTransform(GeneralizedRCNNTransform):
    """torchvision's transform with mmdetection's sizes (rounded, not cut off) and its way of pasting masks."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Scale the shorter side to `min_size`, unless the longer one would exceed `max_size`."""
        if self.training and self._skip_resize:  # the data's transform has chosen the size
            return image, target
        before = image.shape[-2], image.shape[-1]
        sides = cast(Sequence[int], self.min_size)  # torchvision makes a tuple of a number
        side = self.torch_choice(list(sides)) if self.training else sides[-1]
        scale = min(side / min(before), self.max_size / max(before))
        height, width = (int(length * scale + 0.5) for length in before)
        image = F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], list(before), [height, width])
            if "masks" in target:
                masks = F.interpolate(target["masks"][:, None].float(), size=(height, width))
                target["masks"] = masks[:, 0].byte()
        return image, target

    def postprocess(
        self, result: list[dict[str, Tensor]], image_shapes: Sizes, original_image_sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        """Boxes and masks in pixels of the pictures, in place."""
        if not self.training:
            for found, size, original in zip(result, image_shapes, original_image_sizes, strict=True):
                found["boxes"] = resize_boxes(found["boxes"], list(size), list(original))
                if "masks" in found:
                    found["masks"] = paste_masks(found["masks"], found["boxes"], original)
        return result
