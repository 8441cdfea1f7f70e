"""load_checkpoint rebuilds folded and accelerated models: their structure, then the weights of the file."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import gcnet
from gcnet.surgery import record


def awake(model):
    """No norm and no block at its start."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.2)
    return model.eval()


def test_a_folded_model_comes_back(tmp_path):
    model = awake(gcnet.create_model("timm/test_resnet", num_classes=3, block="gc", stages=["c4", "c5"], reduction=4))
    record.set_classes(model, ["a", "b", "c"])
    folded = gcnet.fold(model)
    gcnet.save_checkpoint(folded, tmp_path / "m.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors")
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), folded(x))
    torch.testing.assert_close(loaded.model(x), model(x), rtol=1e-3, atol=1e-4)
    assert [type(module) for module in loaded.model.modules()] == [type(module) for module in folded.modules()]
    assert [rewrite["rewrite"] for rewrite in record.rewrites(loaded.model)] == ["insert", "fold"]
    assert loaded.classes == ["a", "b", "c"]
    with pytest.raises(gcnet.rewrites.RewriteError, match="folded model"):
        loaded.model.train()


def test_an_accelerated_and_folded_model_comes_back(tmp_path):
    model = awake(gcnet.create_model("timm/mobilenetv3_small_050", num_classes=3))
    accelerated = gcnet.accelerate(model)
    x = torch.randn(2, 3, 64, 64)
    for name, rewritten in (("a", accelerated), ("af", gcnet.fold(accelerated))):
        gcnet.save_checkpoint(rewritten, tmp_path / f"{name}.safetensors")
        loaded = gcnet.load_checkpoint(tmp_path / f"{name}.safetensors").model
        assert torch.equal(loaded(x), rewritten(x))
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-3, atol=1e-4)


def test_a_folded_model_of_the_users_own_is_filled_through_architecture(tmp_path):
    plain = awake(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()))
    folded = gcnet.fold(plain)
    gcnet.save_checkpoint(folded, tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 8, 8)
    for given in (plain.train(), folded):
        assert torch.equal(gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=given).model(x), folded(x))
    assert plain.training


@pytest.mark.parametrize(
    ("rewrite", "match"),
    [
        ({"rewrite": "levitate"}, "a rewrite that this gcnet does not know: .*levitate"),
        ("fold", "a rewrite that this gcnet does not know: 'fold'"),
        ({"rewrite": ["fold"]}, "a rewrite that this gcnet does not know"),
        ({"rewrite": "accelerate"}, "cannot be replayed"),
    ],
)
def test_a_record_that_cannot_be_replayed_is_refused(tmp_path, rewrite, match):
    path = tmp_path / "m.safetensors"
    gcnet.save_checkpoint(gcnet.create_model("scenes", num_classes=2), path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["gcnet"])
    save_file(load_file(path), path, {"gcnet": json.dumps(header | {"rewrites": [rewrite]})})
    with pytest.raises(gcnet.CheckpointError, match=match):
        gcnet.load_checkpoint(path)
