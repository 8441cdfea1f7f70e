"""The parts of preset="mmdet" against what mmcv and mmdetection computed, and against figures worked out by hand."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from gcnet.models.detection.boxes import batched_nms, paste_masks, select_detections
from gcnet.models.detection.exact import AlignedRoIPool, ExactAnchors, TwoSidedBoxCoder, pyramid_levels
from gcnet.models.detection.roi_heads import BoxPredictor
from tests.models.detection.small import small


@pytest.fixture(scope="module")
def ops(shared):
    path = shared / "fixtures" / "ops" / "ops.pt"
    if not path.is_file():
        pytest.skip("no reference outputs of ops")
    return torch.load(path, weights_only=True)


def test_boxes_go_to_the_level_of_their_size(ops):
    assert torch.equal(pyramid_levels(ops["roi_levels"]["rois"][:, 1:]), ops["roi_levels"]["levels"])


def test_a_box_of_exactly_112_pixels_belongs_to_the_second_level():
    boxes = torch.tensor(
        [[0.0, 0.0, 111.9, 111.9], [0.0, 0.0, 112.0, 112.0], [0.0, 0.0, 9.0, 1e-3], [0.0, 0.0, 2e3, 2e3]]
    )
    assert pyramid_levels(boxes).tolist() == [0, 1, 0, 3]


def test_roi_align_with_adaptive_sampling_is_mmcvs(ops):
    case = ops["roi_align"]
    for settings in case["cases"]:
        if not settings["aligned"] or settings["sampling_ratio"]:
            continue
        found = roi_align(case["features"], case["rois"], settings["output_size"], settings["spatial_scale"], -1, True)
        torch.testing.assert_close(found, settings["float32"]["output"], atol=1e-6, rtol=1e-5)


def test_pooling_from_the_levels_is_mmdets(ops):
    case = ops["roi_extract"]
    boxes = [case["rois"][case["rois"][:, 0] == i, 1:] for i in range(2)]
    order = torch.cat([torch.where(case["rois"][:, 0] == i)[0] for i in range(2)])
    features = {str(i): level for i, level in enumerate(case["features"])}
    found = AlignedRoIPool(7)(features, boxes, [(192, 256)] * 2)
    torch.testing.assert_close(found, case["output"][order], atol=1e-6, rtol=1e-5)


def test_nms_keeps_the_same_boxes_in_the_same_order(ops):
    case = ops["nms"]
    for iou, expected in case["batched_nms"].items():
        assert torch.equal(batched_nms(case["boxes"], case["scores"], case["idxs"], float(iou)), expected)
    for iou, expected in case["nms"].items():
        assert torch.equal(batched_nms(case["boxes"], case["scores"], torch.zeros(300), float(iou)), expected)


def test_nms_of_more_than_ten_thousand_boxes_goes_group_by_group():
    torch.manual_seed(0)
    corners = torch.rand(10_500, 2) * 300
    boxes, scores = torch.cat([corners, corners + 10 + torch.rand(10_500, 2) * 40], 1), torch.rand(10_500)
    groups = torch.arange(10_500) % 3
    kept = batched_nms(boxes, scores, groups, 0.5)
    expected = torch.cat(
        [
            torch.where(groups == g)[0][batched_nms(boxes[groups == g], scores[groups == g], torch.zeros(3_500), 0.5)]
            for g in range(3)
        ]
    )
    assert set(kept.tolist()) == set(expected.tolist())
    assert (scores[kept].diff() <= 0).all()


def test_an_iou_equal_to_the_threshold_survives():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert len(batched_nms(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2), 0.5)) == 2
    assert len(batched_nms(boxes, torch.tensor([0.9, 0.8]), torch.zeros(2), 0.49)) == 1


def test_detections_of_all_classes_are_chosen_as_in_mmdet(ops):
    case = ops["multiclass_nms"]
    boxes, scores, labels = select_detections(
        case["boxes"].view(150, 5, 4),
        case["scores"][:, :-1],
        score_threshold=case["score_thr"],
        iou_threshold=case["iou_threshold"],
        limit=case["max_num"],
    )
    torch.testing.assert_close(torch.cat([boxes, scores[:, None]], 1), case["dets"])
    assert torch.equal(labels, case["labels"])


def test_anchors_are_neither_rounded_nor_stretched(ops):
    case = ops["anchors"]
    maps = [torch.zeros(1, 1, *size) for size in case["sizes"]]
    images = ImageList(torch.zeros(1, 3, 100, 124), [(100, 124)])
    for name, sides, strides in (
        ("rpn", [[32.0 * 2**k] for k in range(5)], [4, 8, 16, 32, 64]),
        ("retina", [[32.0 * 2 ** (k + i / 3) for i in range(3)] for k in range(5)], [8, 16, 32, 64, 128]),
    ):
        found = ExactAnchors(sides, strides)(images, maps)
        torch.testing.assert_close(found[0], torch.cat(case[name]), atol=1e-4, rtol=1e-6)
        assert len(found) == 1


def test_the_coder_is_mmdets_with_each_of_its_scales(ops):
    case = ops["coder"]
    height, width = case["max_shape"]
    for settings in case["cases"]:
        coder = TwoSidedBoxCoder(tuple(1 / scale for scale in settings["stds"]))
        one = coder.decode_single(case["deltas"], case["boxes"])
        torch.testing.assert_close(one, settings["decode_noclip"], atol=2e-3, rtol=1e-5)
        several = coder.decode_single(case["deltas_per_class"], case["boxes"]).view(60, 5, 4)
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        several = several.clamp(min=torch.zeros(4), max=limits).view(60, 20)
        torch.testing.assert_close(several, settings["decode_per_class"], atol=2e-3, rtol=1e-5)
        torch.testing.assert_close(
            coder.encode_single(settings["gt"], case["boxes"]), settings["encode"], atol=1e-4, rtol=1e-4
        )


def test_a_box_neither_shrinks_nor_grows_by_more_than_the_limit():
    coder = TwoSidedBoxCoder((10.0, 10.0, 5.0, 5.0))
    small, large = (
        coder.decode_single(torch.tensor([[0.0, 0.0, d, d]]), torch.tensor([[0.0, 0.0, 100.0, 100.0]]))
        for d in (-1e3, 1e3)
    )
    assert float(small[0, 2] - small[0, 0]) == pytest.approx(100 * 16 / 1000, rel=1e-4)
    assert float(large[0, 2] - large[0, 0]) == pytest.approx(100 * 1000 / 16, rel=1e-4)


def test_masks_are_pasted_as_in_mmdet(ops):
    case = ops["paste"]
    found = paste_masks(case["masks"], case["boxes"], (case["img_h"], case["img_w"]))[:, 0]
    assert torch.equal(found >= 0.5, case["binary"])


def test_a_mask_outside_of_the_picture_pastes_nothing():
    boxes = torch.tensor([[50.0, 50.0, 60.0, 60.0], [2.0, 2.0, 8.0, 8.0]])
    pasted = paste_masks(torch.ones(2, 1, 28, 28), boxes, (20, 20))
    assert pasted[0].sum() == 0
    assert (pasted[1] >= 0.5).sum() == 36


def test_predictors_of_both_orders_say_the_same():
    torch.manual_seed(0)
    first = BoxPredictor(6, 3, background_last=False, class_agnostic=False)
    last = BoxPredictor(6, 3, background_last=True, class_agnostic=False)
    last.cls_score.weight.data, last.cls_score.bias.data = (
        t.roll(-1, 0) for t in (first.cls_score.weight.data, first.cls_score.bias.data)
    )
    last.bbox_pred.weight.data, last.bbox_pred.bias.data = (
        first.bbox_pred.weight.data[4:],
        first.bbox_pred.bias.data[4:],
    )
    x = torch.randn(5, 6)
    torch.testing.assert_close(last(x)[0], first(x)[0])
    torch.testing.assert_close(last(x)[1][:, 4:], first(x)[1][:, 4:])
    agnostic = BoxPredictor(6, 3, background_last=True, class_agnostic=True)
    deltas = agnostic(x)[1].view(5, 4, 4)
    assert agnostic.bbox_pred.out_features == 4
    assert torch.equal(deltas[:, 0], deltas[:, 3])


def test_pictures_without_a_single_proposal_have_no_detections():
    heads = small("fasterrcnn", preset="mmdet").eval().roi_heads
    none = torch.zeros(0, 4)
    boxes, scores, labels = heads.postprocess_detections(none, torch.zeros(0, 16), [none, none], [(64, 64), (64, 80)])
    assert [list(t.shape) for t in (*boxes, *scores, *labels)] == [[0, 4]] * 2 + [[0]] * 4
