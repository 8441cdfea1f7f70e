"""Profiles of whole detectors: every part against a count by hand, all of torchvision's, boxes that do not depend on
weights."""

import json

import pytest
import torch
from torch import nn
from torchvision.models import detection

import gcnet
from gcnet.analysis.cost import count_parameters
from gcnet.tasks.detection.cost import DetectorPass
from tests.models.detection.small import KINDS, small

SIZE = (3, 64, 96)
MAPS = (16 * 24, 8 * 12, 4 * 6, 2 * 3)  # positions of C2 to C5, and of P2 to P5
LEVELS = sum(MAPS) + 1 * 2  # with P6
C, F, M = 16, 32, 8  # channels of pyramid, box head, mask head
BOXES, MASKS, CLASSES = 30, 100, 3


def mask_rcnn(kind="maskrcnn", **options):
    return gcnet.insert(small(kind, **options), "gc", stages=("c3", "c4", "c5"), reduction=4)


def macs_of(costs):
    return {part.name: part.macs for part in costs.stages}


def box_macs(boxes, deltas):
    return boxes * (C * 49 * F + F * F + F * (CLASSES + 1) + F * deltas)


def mask_macs(masks, outputs):
    return masks * (196 * 9 * (C * M + 3 * M * M) + 196 * 4 * M * M + 784 * M * outputs)


def test_every_part_by_hand():
    model = mask_rcnn()
    costs = gcnet.profile(model, SIZE, rounds=0)
    macs = macs_of(costs)
    assert list(macs) == ["stem", "c2", "c3", "c4", "c5", "fpn", "rpn", "box head", "mask head"]
    assert macs["stem"] == 32 * 48 * 8 * 3 * 49
    inner = C * sum(width * positions for width, positions in zip((8, 16, 32, 64), MAPS, strict=True))
    assert macs["fpn"] == inner + 9 * C * C * sum(MAPS)
    assert macs["rpn"] == LEVELS * (9 * C * C + C * (3 + 12))
    assert macs["box head"] == box_macs(BOXES, 4 * (CLASSES + 1))
    # detections are limited to 100, but no more than the boxes that there are
    assert macs["mask head"] == mask_macs(min(MASKS, BOXES), CLASSES + 1)
    assert costs.boxes == BOXES


def test_parameters_and_blocks_add_up_and_the_detector_stays_as_it_is():
    model = mask_rcnn()
    model.train()
    children = dict(model.named_children())
    costs = gcnet.profile(model, SIZE, rounds=0)
    assert dict(model.named_children()) == children
    assert model.training
    assert costs.params == count_parameters(model) == sum(part.params for part in costs.stages)
    assert costs.macs == sum(part.macs for part in costs.stages)
    assert {part.name: part.params for part in costs.stages}["mask head"] == count_parameters(
        nn.ModuleList([model.roi_heads.mask_head, model.roi_heads.mask_predictor])
    )
    assert [block.name for block in costs.blocks] == list(gcnet.inserted(model))
    assert costs.without is not None
    assert costs.without.params == costs.params - sum(block.params for block in costs.blocks)
    behind = ("fpn", "rpn", "box head", "mask head")
    assert [macs_of(costs)[name] for name in behind] == [macs_of(costs.without)[name] for name in behind]


def test_a_cascade_counts_three_heads_and_two_images_count_twice():
    model = small("cascade_maskrcnn", preset="mmdet", detections_per_image=5)
    one, two = (macs_of(gcnet.profile(model, (n, *SIZE), rounds=0)) for n in (1, 2))
    assert one["box head"] == 3 * box_macs(BOXES, 4)
    assert one["mask head"] == 3 * mask_macs(5, CLASSES)  # mmdet's heads have no mask for the background
    assert two == {name: 2 * macs for name, macs in one.items()}


@pytest.mark.parametrize("preset", ["torchvision", "mmdet"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_device_counts_the_same(kind, preset):
    real = mask_rcnn(kind, preset=preset)
    with torch.device("meta"):
        model = mask_rcnn(kind, preset=preset)
    costs, expected = gcnet.profile(model, SIZE), gcnet.profile(real, SIZE, rounds=0)
    assert costs.device == "meta"
    assert (costs.macs, costs.stages, costs.boxes) == (expected.macs, expected.stages, expected.boxes)
    assert costs.boxes == (None if kind == "retinanet" else BOXES)


def test_the_pass_computes_what_the_detector_computes_for_the_same_boxes():
    model = mask_rcnn(preset="mmdet").eval()
    images = torch.randn(1, *SIZE)
    trace = model.trace(images, [SIZE[1:]])
    layers = DetectorPass(model, images)
    layers.boxes = trace["proposals"][0]["boxes"]
    with torch.no_grad():
        (logits, deltas), masks = layers(images)
    torch.testing.assert_close(logits.roll(-1, 1), trace["logits"])  # the background is last in mmdet's weights
    torch.testing.assert_close(deltas[:, 4:], trace["deltas"])
    assert masks.shape == (len(trace["rois"]), CLASSES + 1, 28, 28)


def test_boxes_lie_in_the_image_and_reach_all_levels():
    images = torch.zeros(2, 3, 800, 1280)
    boxes = DetectorPass(gcnet.create_model("fasterrcnn_resnet18_fpn", num_classes=1, base_channels=8), images).boxes
    x1, y1, x2, y2 = boxes.unbind(1)
    assert len(boxes) == 1000
    assert torch.stack([x1, y1, 1280 - x2, 800 - y2]).min() >= -1e-3
    sides = x2 - x1
    torch.testing.assert_close(sides, y2 - y1, atol=1e-3, rtol=0)
    levels = torch.log2(sides / 56).floor().clamp(0, 3).long().bincount(minlength=4)
    assert levels.min() > 100


def test_deformable_convolutions_cost_theirs_and_their_offsets():
    with torch.device("meta"):
        model = small("fasterrcnn", trunk="resnet50")
        deformable = gcnet.deform(model, stages=("c5",))
    added = macs_of(gcnet.profile(deformable, SIZE))["c5"] - macs_of(gcnet.profile(model, SIZE))["c5"]
    width, offsets = 64, 18
    assert added == 3 * 2 * 3 * 9 * width * offsets  # three units on 2 x 3 positions


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        ("keypointrcnn_resnet50_fpn", {"stem", "c2", "c3", "c4", "c5", "fpn", "rpn", "box head", "keypoint head"}),
        ("retinanet_resnet50_fpn_v2", {"stem", "c2", "c3", "c4", "c5", "fpn", "head"}),
        ("fcos_resnet50_fpn", {"stem", "c2", "c3", "c4", "c5", "fpn", "head"}),
        ("ssd300_vgg16", {"backbone", "head"}),
        (
            "fasterrcnn_mobilenet_v3_large_320_fpn",
            {"stem", "c1", "c2", "c3", "c4", "c5", "fpn", "rpn", "box head"},
        ),
    ],
)
def test_torchvisions_detectors_have_their_parts(build, parts):
    with torch.device("meta"):
        model = getattr(detection, build)(weights=None, weights_backbone=None)
    costs = gcnet.profile(model, (3, 320, 320))
    assert {part.name for part in costs.stages} == parts
    assert costs.params == count_parameters(model) == sum(part.params for part in costs.stages)
    assert costs.macs == sum(part.macs for part in costs.stages)


def test_a_mask_rcnn_of_full_size():
    """The heads by hand: mmdetection's convention, 1000 boxes and 100 masks."""
    with torch.device("meta"):
        costs = gcnet.profile(
            gcnet.create_model("maskrcnn_resnet50_fpn", num_classes=80, preset="mmdet"), (3, 800, 1280)
        )
    macs = macs_of(costs)
    assert costs.params == 44_396_336
    assert macs["box head"] == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    assert macs["mask head"] == 100 * (4 * 196 * 9 * 256**2 + 196 * 4 * 256**2 + 784 * 256 * 80)
    assert round(costs.macs / 1e9, 1) == 259.3


def test_text_and_json_say_how_many_boxes_and_the_pass_is_timed():
    costs = gcnet.profile(mask_rcnn(), SIZE, rounds=2)
    assert str(costs).startswith("TwoStage, 1x3x64x96, 30 boxes per image, float32, cpu")
    assert json.loads(json.dumps(costs.to_dict()))["boxes"] == 30
    assert costs.ratio is not None
    assert costs.ratio.count == 2


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 1)
        self.transform = detection.transform.GeneralizedRCNNTransform(64, 64, [0.0], [1.0])


def test_what_cannot_be_profiled_says_why():
    with pytest.raises(ValueError, match=r"model is a Unknown, a detector without torchvision's names"):
        gcnet.profile(Unknown(), SIZE)
    with pytest.raises(ValueError, match=r"does not take input_size=\(1, 4, 64, 64\)"):
        gcnet.profile(small("fasterrcnn"), (4, 64, 64), rounds=0)
    assert gcnet.profile(small("fasterrcnn").backbone, SIZE, rounds=0).boxes is None
