"""insert and fold on our detectors: the same detections."""

import copy

import pytest
import torch

import gcnet
from tests.models.detection.small import KINDS, small
from tests.rewrites.models import awake


def _alive(kind, **options):
    """Norms with statistics of their own, and detections above the threshold."""
    model = small(kind, score_threshold=0.01, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def _detections(model, images):
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("preset", ["torchvision", "mmdet"])
@pytest.mark.parametrize("kind", KINDS)
def test_inserted_blocks_change_nothing_at_first_and_a_folded_detector_finds_the_same(kind, preset):
    # float64, since in float32 rounding may decide at a threshold: RetinaNet starts with scores that are nearly equal
    model = _alive(kind, trunk="resnet50", preset=preset).double()
    images = [torch.rand(3, 64, 80).double(), torch.rand(3, 70, 64).double()]
    before = _detections(model, images)
    with_blocks = gcnet.insert(model, "gc", stages=("c3", "c4", "c5"), reduction=4)
    names = list(gcnet.inserted(with_blocks))
    assert len(names) == 13
    assert names[0] == "backbone.body.layer2.0.context"
    for found, expected in zip(_detections(with_blocks, images), before, strict=True):
        assert all(torch.equal(found[key], expected[key]) for key in expected)

    awake(with_blocks, gcnet.inserted(with_blocks))
    expected = _detections(with_blocks, images)
    folded = gcnet.fold(with_blocks)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.backbone.body.layer3.modules())
    for found, wanted in zip(_detections(folded, images), expected, strict=True):
        assert len(wanted["boxes"]) > 0
        assert found.keys() == wanted.keys()
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], atol=1e-6, rtol=1e-6)


def test_frozen_norms_and_frozen_stages_survive_copies_and_blocks():
    model = gcnet.insert(small("fasterrcnn", preset="mmdet", norm="frozen", frozen_stages=1), "gc", stages=("c4",))
    model = copy.deepcopy(model).train()
    body = model.backbone.body
    assert not any(m.training for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert body.layer3[0].context.training
    assert not body.layer1.training


def test_a_checkpoint_rebuilds_the_detector(tmp_path):
    model = gcnet.insert(_alive("cascade_maskrcnn", preset="mmdet"), "gc", stages=("c4",), reduction=4)
    awake(model, gcnet.inserted(model))
    gcnet.save_checkpoint(model, tmp_path / "d.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "d.safetensors")
    images = [torch.rand(3, 64, 64)]
    found, expected = _detections(loaded.model, images)[0], _detections(model, images)[0]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert loaded.architecture["preset"] == "mmdet"
    assert loaded.preprocessing["min_size"] == 64
