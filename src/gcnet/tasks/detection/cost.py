"""One pass through a detector whose work does not depend on what it sees: the boxes are given, none is chosen."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetError
from gcnet.tasks.spec import Counted

_SMALLEST_SIDE = 16  # pixels; of the boxes
_ROI_HEAD = re.compile(r"roi_heads\.(?:stages\.\d+\.)?(box|mask|keypoint)_")


def detector_part(name: str) -> str | None:
    """The part behind the backbone that a module of a detector belongs to, by its name.

    Example:
        >>> detector_part("roi_heads.stages.2.mask_head.0.0"), detector_part("backbone.body.conv1")
        ('mask head', None)
    """
    roi_head = _ROI_HEAD.match(name)
    if roi_head is not None:
        return f"{roi_head[1]} head"
    prefixes = {"backbone.fpn": "fpn", "rpn": "rpn", "head": "head"}
    return next((part for prefix, part in prefixes.items() if f"{name}.".startswith(f"{prefix}.")), None)


def fixed_pass(model: nn.Module, images: Tensor) -> Counted:
    fixed = DetectorPass(model, images)
    return Counted(fixed, detector_part, fixed.count)


class DetectorPass(nn.Module):
    """The layers of a detector, under the names that they have in it, on images of exactly the size given.

    The box heads see as many boxes of each image as the RPN passes on at inference (1000 unless it was told otherwise),
    heads for masks and keypoints as many as detections are kept (100); in a cascade every stage does. That is how
    mmdetection counts (`StandardRoIHead.forward` in mmdet/models/roi_heads/standard_roi_head.py). Scaling the images,
    choosing boxes (decoding, sorting, NMS) and pasting masks are left out.

    Attributes:
        count: boxes of each image in the box heads; None of a detector with one stage.

    Args:
        detector: of `gcnet.models.detection` or of torchvision, with one stage or two.
        images: (B, C, H, W); the boxes lie inside of them. On the meta device the boxes are on the CPU, since which
            map a box is pooled from depends on its size.
    """

    backbone: Any
    rpn: Any
    roi_heads: Any
    head: Any

    def __init__(self, detector: nn.Module, images: Tensor) -> None:
        super().__init__()
        for name, child in detector.named_children():
            self.add_module(name, child)
        self._two_stages = hasattr(self, "rpn") and hasattr(self, "roi_heads")
        if not hasattr(self, "backbone") or not (self._two_stages or hasattr(self, "head")):
            raise GcnetError(
                f"model is a {type(detector).__name__}, a detector without torchvision's names for its parts (backbone "
                "and rpn, roi_heads or head); profile its backbone: gcnet.profile(model.backbone, ...)"
            )
        self.count: int | None = None
        if self._two_stages:
            # of every image; no buffer: it is no part of the model
            self.boxes = _boxes(self.rpn._post_nms_top_n["testing"], images)
            self.count = len(self.boxes)

    def forward(self, images: Tensor) -> list[Any]:
        """The heads' outputs as they give them: of one stage a dictionary, else first those of the box heads."""
        maps = self.backbone(images)
        features = {"0": maps} if isinstance(maps, Tensor) else maps
        levels = list(features.values())
        if not self._two_stages:
            return [self.head(levels)]
        self.rpn.head(levels)
        stages = list(getattr(self.roi_heads, "stages", [self.roi_heads]))
        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        boxes = [self.boxes] * len(images)
        outputs = [stage.box_predictor(stage.box_head(stage.box_roi_pool(features, boxes, sizes))) for stage in stages]
        found = [of_image[: stages[-1].detections_per_img] for of_image in boxes]
        for kind in ("mask", "keypoint"):
            if getattr(stages[0], f"{kind}_head", None) is not None:
                pooled = getattr(stages[0], f"{kind}_roi_pool")(features, found, sizes)
                for stage in stages:
                    outputs.append(getattr(stage, f"{kind}_predictor")(getattr(stage, f"{kind}_head")(pooled)))
        return outputs


def _boxes(count: int, images: Tensor) -> Tensor:
    """Squares (count, 4) anywhere in the images, always the same, as many small ones as large ones by octaves."""
    height, width = images.shape[-2:]
    device = "cpu" if images.is_meta else images.device
    random = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), device="cpu")
    longest = float(min(height, width))
    shortest = min(_SMALLEST_SIDE, longest)
    sides = shortest * (longest / shortest) ** random[:, 0]
    lefts, tops = (width - sides) * random[:, 1], (height - sides) * random[:, 2]
    return torch.stack([lefts, tops, lefts + sides, tops + sides], dim=1).to(device, images.dtype)
