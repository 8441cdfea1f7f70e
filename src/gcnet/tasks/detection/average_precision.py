"""COCO's twelve figures (https://cocodataset.org/#detection-eval) of boxes or masks, by faster-coco-eval."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from gcnet.errors import GcnetError

# In COCO's order: over IoU .50 to .95, at .50, at .75, of small (area < 32^2), medium and large (> 96^2) objects; the
# highest recall with 1, 10, 100 detections per image, and by size.
FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def average_precision(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], *, kind: Literal["bbox", "segm"] = "bbox"
) -> dict[str, Any]:
    """The figures of detections in COCO's result format against COCO's ground truth; neither is altered.

    Args:
        truth: images, annotations and categories as in an annotation file.
        detections: image_id, category_id, score, and bbox (x, y, width, height) or segmentation (run lengths).
        kind: compare boxes or masks.

    Returns:
        `FIGURES`, each 0 to 1, or None where there is no object to find (COCO's -1), and `per_class`: category id,
        name, AP and AP50 of each category.

    Raises:
        ValueError: another kind, or a detection of an image or category that `truth` does not list.
    """
    if kind not in ("bbox", "segm"):
        raise GcnetError(f"kind={kind!r}; allowed are 'bbox' and 'segm'")
    _check(truth, detections)
    annotations = [dict(annotation) for annotation in truth["annotations"]]  # faster-coco-eval writes into them
    known = COCO({"info": {}, **truth, "annotations": annotations})
    keys = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
    found = known.loadRes([{key: copy.copy(detection[key]) for key in keys} for detection in detections])
    evaluation = COCOeval_faster(known, found, iouType=kind, print_function=lambda *_: None, separate_eval=True)
    evaluation.run()
    figures: dict[str, Any] = dict(zip(FIGURES, map(_share, evaluation.stats[: len(FIGURES)]), strict=True))
    # thresholds, recalls, classes, areas (0: all), numbers of detections (-1: 100)
    precision = np.asarray(evaluation.eval["precision"]).reshape(evaluation.eval["counts"])[:, :, :, 0, -1]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    figures["per_class"] = [
        {
            "category_id": int(category),
            "class": names[category],
            "AP": _mean(precision[:, :, place]),
            "AP50": _mean(precision[0, :, place]),
        }
        for place, category in enumerate(evaluation.params.catIds)
    ]
    return figures


def _check(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> None:
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for place, detection in enumerate(detections):
        for key, known in (("image_id", images), ("category_id", categories)):
            if detection[key] not in known:
                raise GcnetError(
                    f"detections[{place}] has {key}={detection[key]!r}, which the ground truth does not list"
                )


def _share(value: float) -> float | None:
    return None if value < 0 else float(value)


def _mean(precision: np.ndarray) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
