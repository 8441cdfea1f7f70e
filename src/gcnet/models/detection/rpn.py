"""The region proposal network with mmdetection's choice of proposals."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import clip_boxes_to_image

from gcnet.models.detection.boxes import batched_nms, has_area, in_float


class ExactRPN(RegionProposalNetwork):
    """torchvision's RPN; the best of each level, clipped, without empty boxes, NMS per level by mmcv's offsets."""

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
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
