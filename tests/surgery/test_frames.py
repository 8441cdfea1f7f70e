import pytest
import torch
from torch import nn
from torchvision.models import detection, resnet18

import gcnet
from gcnet.surgery.frames import frame_of, framed, images_as_given, is_detector, small_images


def small():
    return gcnet.create_model("fasterrcnn_resnet18_fpn", num_classes=2, base_channels=8, fpn_channels=16)


def test_detectors_are_told_from_other_models_by_their_frame():
    theirs = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    assert [is_detector(model) for model in (small(), theirs, resnet18(), nn.Sequential(small()))] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_batch_is_padded_and_small_where_only_the_flow_matters():
    model, images = small().eval(), [torch.rand(3, 60, 90), torch.rand(3, 40, 40)]
    with small_images(model):
        batch = framed(model, images)
    assert batch.image_sizes == [(128, 192), (128, 128)]
    assert batch.tensors.shape == (2, 3, 128, 192)
    assert min(framed(model, images).image_sizes[1]) > 128


@pytest.mark.parametrize("scope", [small_images, images_as_given])
def test_the_frame_is_as_before_also_after_an_error_and_other_models_pass(scope):
    model = small()
    before = dict(vars(frame_of(model)))
    with scope(model):
        assert vars(frame_of(model)) != before
    assert vars(frame_of(model)) == before
    with pytest.raises(IndexError), scope(model):
        framed(model, [])
    assert vars(frame_of(model)) == before
    with scope(nn.Linear(2, 2)):
        pass


def test_images_keep_their_size_in_training_where_the_data_chose_it():
    model, images = small().train(), [torch.rand(3, 64, 96)]
    with images_as_given(model):
        assert framed(model, images).image_sizes == [(64, 96)]
    assert framed(model, images).image_sizes != [(64, 96)]
