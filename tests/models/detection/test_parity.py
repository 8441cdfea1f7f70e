"""preset="mmdet" computes what mmdetection 3.3 computed: every stage of seven small detectors, and their detections."""

import copy

import pytest
import torch

from gcnet.models.detection.boxes import paste_masks
from tests.models.detection.fixtures import NAMES, build

PIXELS, SCORES = 0.05, 2e-3  # the tolerances at which detections count as the same


@pytest.fixture(scope="module", params=NAMES)
def case(request, shared):
    folder = shared / "fixtures" / "detectors" / request.param
    if not (folder / "reference.pt").is_file():
        pytest.skip(f"no reference outputs of {request.param}")
    reference, single = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("reference", "reference_single")
    )
    model = build(folder)
    return model, reference, model.trace(reference["input"], _sizes(reference)), single


def _sizes(reference):
    return [tuple(meta["img_shape"]) for meta in reference["metas"]]


def _relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def pairs(found, expected):
    """For each expected detection the index of its own partner among those found, or None."""
    free, result = set(range(len(found["boxes"]))), []
    for i in range(len(expected["boxes"])):
        near = (found["boxes"] - expected["boxes"][i]).abs().amax(1) < PIXELS
        near &= (found["scores"] - expected["scores"][i]).abs() < SCORES
        if "labels" in expected:
            near &= found["labels"] == expected["labels"][i]
        partner = next((j for j in torch.where(near)[0].tolist() if j in free), None)
        free.discard(partner)
        result.append(partner)
    return result


def _check_sets(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert len(mine["boxes"]) == len(theirs["boxes"])
        assert None not in pairs(mine, theirs)


def test_maps_pyramid_and_dense_head_are_equal(case):
    _, reference, trace, _ = case
    dense = reference.get("rpn") or reference["head"]
    for found, expected in (
        (trace["backbone"], reference["backbone"]),
        (trace["fpn"], reference["fpn"]),
        (trace["rpn"]["cls_score"], dense["cls_score"]),
        (trace["rpn"]["bbox_pred"], dense["bbox_pred"]),
    ):
        assert len(found) == len(expected)
        assert max(map(_relative, found, expected)) < 5e-5  # measured: at most 1.6e-5, of two versions of PyTorch


def test_proposals_and_detections_are_the_same_sets(case):
    model, reference, trace, single = case
    _check_sets(trace["detections"], reference["detections_net"])
    alone = model.trace(single["input"], _sizes(single))
    _check_sets(alone["detections"], single["detections_net"])
    if "proposals" in reference:
        _check_sets(trace["proposals"], reference["proposals"])
        _check_sets(alone["proposals"], single["proposals"])


def test_logits_and_deltas_of_the_same_boxes_are_equal(case):
    _, reference, trace, _ = case
    if "head" in reference:
        pytest.skip("RetinaNet has no boxes in between")
    if "cascade" in reference:
        stages = reference["cascade"]["stages"]
        rois, logits, deltas = trace["rois"], trace["logits"], trace["deltas"]
    else:
        stages = [reference["bbox_head"]]
        rois, logits, deltas = [trace["rois"]], [trace["logits"]], [trace["deltas"]]
    for k, stage in enumerate(stages):
        image = rois[k][:, :1] * 10_000  # boxes of different images are far from each other
        far = stage["rois"][:, :1] * 10_000
        partner = torch.cdist(stage["rois"][:, 1:] + far, rois[k][:, 1:] + image, p=float("inf")).min(1)
        assert float(partner.values.max()) < PIXELS
        assert _relative(logits[k][partner.indices], stage["cls_score"]) < 1e-4
        assert _relative(deltas[k][partner.indices], stage["bbox_pred"]) < 1e-4


def test_masks_in_the_boxes_and_in_the_picture_are_equal(case):
    _, reference, trace, _ = case
    if "mask_probs" not in reference:
        pytest.skip("RetinaNet has no masks")
    for i, (found, expected) in enumerate(zip(trace["detections"], reference["detections_net"], strict=True)):
        order = pairs(found, expected)
        masks = trace["masks"][i][order]
        torch.testing.assert_close(masks, reference["mask_probs"][i], atol=5e-3, rtol=0)  # boxes differ by 1e-3 px
        count, height, width = reference["masks_shape"][i]
        boxes = reference["detections"][i]["boxes"]
        mine = paste_masks(masks[:, None], boxes, (height, width))[:, 0] >= 0.5
        bits = (reference["masks_packed"][i][:, :, None] >> torch.arange(7, -1, -1)) & 1
        theirs = bits.flatten(1)[:, : height * width].bool().view(count, height, width)
        assert int((mine ^ theirs).sum()) <= 2e-4 * theirs.numel()
        assert theirs.any()


def test_boxes_of_the_pictures_are_those_of_the_batch_scaled_back(case):
    model, reference, trace, _ = case
    originals = [tuple(meta["ori_shape"]) for meta in reference["metas"]]
    found = [dict(detections) for detections in trace["detections"]]
    found = model.transform.postprocess(found, _sizes(reference), originals)
    _check_sets(found, reference["detections"])


def test_a_picture_gives_what_its_normalised_batch_gives(case):
    model, reference, _, single = case
    picture = reference["raw_bgr_uint8"][single["image_index"]].flip(0) / 255
    transform = copy.copy(model.transform)
    transform.min_size, transform.max_size = (min(picture.shape[1:]),), max(picture.shape[1:])
    shown = copy.copy(model)
    shown._modules = {**model._modules, "transform": transform}
    torch.testing.assert_close(transform([picture])[0].tensors, single["input"], atol=2e-5, rtol=0)
    with torch.no_grad():
        _check_sets(shown([picture]), single["detections_net"])
