"""Our twelve figures are pycocotools' own, to 1e-6, for boxes and masks, with crowds and ties."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools import mask as api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gcnet.tasks.detection.average_precision import FIGURES, average_precision


def ellipse(rng, height, width):
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    ry, rx = rng.uniform(4, height / 2), rng.uniform(4, width / 2)
    y, x = np.mgrid[:height, :width]
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1


def runs(mask):
    found = api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


@pytest.fixture(scope="module")
def drawn():
    """Two dozen images, four classes (one never there, one without detections), crowds, near and far guesses."""
    rng = np.random.default_rng(0)
    truth = {"images": [], "annotations": [], "categories": [{"id": i, "name": f"c{i}"} for i in (1, 3, 7, 9)]}
    detections = []
    for image in range(1, 25):
        height, width = (int(side) for side in rng.integers(60, 260, 2))
        truth["images"].append({"id": image, "height": height, "width": width})
        for _ in range(rng.integers(0, 9)):
            mask = ellipse(rng, height, width)
            if not mask.any():
                continue
            category = int(rng.choice([1, 3, 7]))
            entry = {
                "id": len(truth["annotations"]) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": api.toBbox(runs(mask)).tolist(),
                "area": float(mask.sum()),
                "iscrowd": int(rng.random() < 0.15),
                "segmentation": runs(mask),
            }
            truth["annotations"].append(entry)
            if category == 7:
                continue
            for _ in range(rng.integers(0, 4)):
                moved = np.roll(mask, tuple(rng.integers(-6, 7, 2)), (0, 1))
                box = np.array(entry["bbox"]) + rng.normal(0, 3, 4)
                detections.append(
                    {
                        "image_id": image,
                        "category_id": category if rng.random() < 0.8 else 3,
                        "score": round(float(rng.random()), 1),
                        "bbox": np.maximum(box, [0, 0, 1, 1]).tolist(),
                        "segmentation": runs(moved),
                    }
                )
    return truth, detections


def theirs(truth, detections, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy({"info": {}, **truth})
        known.createIndex()
        keys = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
        found = known.loadRes([{key: copy.deepcopy(one[key]) for key in keys} for one in detections])
        evaluation = COCOeval(known, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_all_figures_and_every_class_equal_those_of_pycocotools(drawn, kind):
    truth, detections = drawn
    ours, reference = average_precision(truth, detections, kind=kind), theirs(truth, detections, kind)
    assert len(detections) > 40
    assert 0.05 < ours["AP"] < 0.95
    for name, expected in zip(FIGURES, reference.stats, strict=True):
        assert (-1 if ours[name] is None else ours[name]) == pytest.approx(expected, abs=1e-6), name
    precision = reference.eval["precision"][:, :, :, 0, -1]
    for place, row in enumerate(ours["per_class"]):
        valid = precision[:, :, place][precision[:, :, place] > -1]
        assert row["AP"] == (pytest.approx(valid.mean(), abs=1e-6) if valid.size else None)
    assert [(row["category_id"], row["class"]) for row in ours["per_class"]] == [
        (1, "c1"),
        (3, "c3"),
        (7, "c7"),
        (9, "c9"),
    ]
    assert ours["per_class"][3]["AP"] is None  # no such object anywhere


def test_the_truth_found_exactly_is_perfect_and_nothing_found_is_zero(drawn):
    truth, _ = drawn
    perfect = [one | {"score": 1.0} for one in truth["annotations"] if not one["iscrowd"]]
    assert average_precision(truth, perfect)["AP"] == pytest.approx(1)
    assert average_precision(truth, perfect, kind="segm")["AP"] == pytest.approx(1)
    assert average_precision(truth, [])["AP"] == 0
    assert average_precision({**truth, "annotations": []}, [])["AP"] is None


def test_the_arguments_stay_as_they_were(drawn):
    truth, detections = drawn
    before = copy.deepcopy(drawn)
    average_precision(truth, detections, kind="segm")
    assert (truth, detections) == before


def test_detections_of_other_images_or_categories_are_refused(drawn):
    truth, detections = drawn
    with pytest.raises(ValueError, match=r"detections\[0\] has image_id=99, which the ground truth does not list"):
        average_precision(truth, [detections[0] | {"image_id": 99}])
    with pytest.raises(ValueError, match=r"has category_id=2"):
        average_precision(truth, [detections[0] | {"category_id": 2}])
    with pytest.raises(ValueError, match="kind='boxes'; allowed are 'bbox' and 'segm'"):
        average_precision(truth, [], kind="boxes")  # type: ignore[arg-type]
