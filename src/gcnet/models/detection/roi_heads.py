"""RoI heads that choose detections as mmdetection does."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import clip_boxes_to_image

from gcnet.models.detection.boxes import in_float, select_detections


class ExactRoIHeads(RoIHeads):
    """torchvision's RoI heads with mmdetection's last step: no box is too small, NMS per class by mmcv's offsets."""

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
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
