"""COCO's figures of boxes and masks, and detections in COCO's result format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from faster_coco_eval import mask as run_lengths
from torch import Tensor, nn

from gcnet.data.source import Source
from gcnet.distributed import gathered
from gcnet.tasks.detection.average_precision import average_precision

Found = dict[str, Tensor]
MASK_THRESHOLD = 0.5
KINDS: tuple[tuple[str, Literal["bbox", "segm"]], ...] = (("box", "bbox"), ("mask", "segm"))


def as_results(image_id: int, found: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """One image's detections in COCO's result format; a category's id is its label plus 1.

    Args:
        image_id: of the image.
        found: boxes (N, 4), labels (N,) from 0, scores (N,), perhaps masks (N, 1, H, W), probabilities.
    """
    boxes = found["boxes"].detach().float().cpu()
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    scores, labels = found["scores"].float().tolist(), found["labels"].tolist()
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score}
        for box, score, label in zip(sides, scores, labels, strict=True)
    ]
    if "masks" in found:
        pixels = (found["masks"][:, 0] >= MASK_THRESHOLD).cpu().numpy().astype(np.uint8)
        for result, mask in zip(results, pixels, strict=True):
            runs = run_lengths.encode(np.asfortranarray(mask))
            counts = runs["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            result["segmentation"] = {"size": list(runs["size"]), "counts": text}
    return results


def measured(source: Source, split: str, *, masks: bool) -> DetectMetrics:
    return DetectMetrics(source.truth[split], masks=masks)


class DetectMetrics(nn.Module):
    """COCO's twelve figures of boxes (`box_AP`, `box_AP50`, ...) and, with masks, of masks; AP of every class.

    Only images that were seen count: one whose file cannot be read is no miss.

    Args:
        truth: images, annotations and categories in COCO's format, category ids being labels plus 1.
        masks: evaluate masks, too.
    """

    def __init__(self, truth: Mapping[str, Any], *, masks: bool) -> None:
        super().__init__()
        self.truth = truth
        self.masks = masks
        self.found: dict[int, list[dict[str, Any]]] = {}

    def update(self, outputs: list[Found], batch: Any, loss: Tensor | None = None) -> None:
        for found, target in zip(outputs, batch.targets, strict=True):
            self.found[target["image_id"]] = as_results(target["image_id"], found)

    def compute(self) -> dict[str, Any]:
        found = gathered(self.found)
        if not found:
            return {}
        truth = {
            "images": [image for image in self.truth["images"] if image["id"] in found],
            "annotations": [one for one in self.truth["annotations"] if one["image_id"] in found],
            "categories": self.truth["categories"],
        }
        detections = [detection for image_id in sorted(found) for detection in found[image_id]]
        figures: dict[str, Any] = {}
        per_class: dict[int, dict[str, Any]] = {}
        for name, kind in KINDS[: 2 if self.masks else 1]:
            part = average_precision(truth, detections, kind=kind)
            for row in part.pop("per_class"):
                entry = per_class.setdefault(row["category_id"], {"class": row["class"]})
                entry |= {f"{name}_AP": row["AP"], f"{name}_AP50": row["AP50"]}
            figures |= {f"{name}_{key}": value for key, value in part.items()}
        return figures | {"per_class": [per_class[category] for category in sorted(per_class)]}

    def reset(self) -> None:
        self.found = {}
