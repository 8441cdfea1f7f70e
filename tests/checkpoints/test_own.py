"""What the header of an own file says, and what it cannot ask for."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import gcnet
from gcnet.surgery import record

TINY = "timm/test_resnet"
SMALL = {"base_channels": 2, "fpn_channels": 4, "fc_channels": 4}


def header_of(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["gcnet"])


def saved_as(path, model):
    """The same tensors with another description of the model."""
    save_file(load_file(path), path, {"gcnet": json.dumps(header_of(path) | {"model": model})})


def test_the_header_describes_the_model_as_version_one_reads_it(tmp_path):
    path = tmp_path / "m.safetensors"
    gcnet.save_checkpoint(gcnet.create_model("fasterrcnn_resnet18_fpn", num_classes=2, **SMALL), path)
    options = {"preset": "torchvision", **SMALL}
    assert header_of(path)["model"] == {"name": "fasterrcnn_resnet18_fpn", "num_classes": 2, "options": options}


def test_a_detectors_options_may_stand_beside_its_name(tmp_path):
    """So did version 0.1.0 write them."""
    path = tmp_path / "m.safetensors"
    model = gcnet.create_model("maskrcnn_resnet18_fpn", num_classes=2, mask_channels=4, **SMALL)
    gcnet.save_checkpoint(model, path)
    new = gcnet.load_checkpoint(path)
    described = header_of(path)["model"]
    saved_as(path, {"name": described["name"], "num_classes": 2, **described["options"]})
    old = gcnet.load_checkpoint(path)
    assert old.architecture == new.architecture
    assert record.architecture(old.model) == record.architecture(model)
    assert new.architecture["task"] == "instances"
    assert new.architecture["options"]["mask_channels"] == new.architecture["mask_channels"] == 4


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("name", [TINY, "fasterrcnn_resnet18_fpn"])
@pytest.mark.parametrize("asked", [{"weights": "imagenet"}, {"block": "gc"}, {"deform": ["c5"]}])
def test_a_header_cannot_ask_for_more_than_the_plain_model(tmp_path, monkeypatch, beside, name, asked):
    monkeypatch.setattr("gcnet.models.weights._imagenet", lambda name: pytest.fail("weights were asked for"))
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(1)}, path)
    described = {"name": name, "num_classes": 2} | (asked if beside else {"options": asked})
    header = {"format": 1, "model": described, "rewrites": [], "classes": None, "preprocessing": None}
    save_file({"a": torch.ones(1)}, path, {"gcnet": json.dumps(header)})
    with pytest.raises(gcnet.CheckpointError, match=f"cannot be built here .*{next(iter(asked))}"):
        gcnet.load_checkpoint(path)


@pytest.mark.parametrize("rewrites", [[], [{"rewrite": "insert", "block": "gc"}]])
@pytest.mark.parametrize("change", [{"name": "wide_resnet101_2"}, {"num_classes": 500_000_000}])
def test_a_model_far_larger_than_its_file_is_refused_before_it_is_built(tmp_path, monkeypatch, change, rewrites):
    monkeypatch.setattr("gcnet.checkpoints.own.plain_model", lambda *_: pytest.fail("it was built"))
    path = tmp_path / "m.safetensors"
    model = {"name": TINY, "num_classes": 2, "options": {}} | change
    header = {"format": 1, "model": model, "rewrites": rewrites, "classes": None, "preprocessing": None}
    save_file({"a": torch.ones(1)}, path, {"gcnet": json.dumps(header)})
    with pytest.raises(gcnet.CheckpointError, match=r"own architecture: \d+ missing: .*; 1 unknown to the model: a\."):
        gcnet.load_checkpoint(path)


def test_a_model_that_was_changed_after_it_was_built_names_the_way_out(tmp_path):
    model = gcnet.create_model(TINY, num_classes=3)
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(model.fc.in_features, 3))
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match=r"own architecture: .*fc\.1.*load_checkpoint\(path, architecture="):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=model).model
    assert torch.equal(loaded.fc[1].weight, model.fc[1].weight)
