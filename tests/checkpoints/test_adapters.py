"""Files of other programs go to the first adapter that fits; what passes between is the same for all."""

import pytest
import torch
import torchvision
from torch import nn

import gcnet
from gcnet.checkpoints import classifiers
from gcnet.checkpoints.adapters import ADAPTERS
from gcnet.models.catalogue import CATALOGUE

MMDETS = {"backbone.layer1.0.conv1.weight": (4, 4, 1, 1), "neck.lateral_convs.0.conv.bias": (4,)}
TORCHVISIONS = {"backbone.body.conv1.weight": (4, 3, 7, 7), "backbone.fpn.inner_blocks.0.bias": (4,)}
TIMMS = {"conv1.weight": (4, 3, 7, 7), "layer1.0.conv1.weight": (4, 4, 3, 3)}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=4).eval()


def test_names_and_shapes_tell_whose_file_it_is():
    fitting = [[adapter.source for adapter in ADAPTERS if adapter.fits(keys)] for keys in (MMDETS, TORCHVISIONS, TIMMS)]
    assert fitting == [[adapter.source] for adapter in ADAPTERS]
    assert not any(adapter.fits({"generator.fc.weight": (8, 4)}) for adapter in ADAPTERS)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "scenes"])
def test_every_classifier_of_the_catalogue_has_a_mark_that_leads_to_it(name):
    # torchvision's RegNet computes its widths with tensors, which hold no values on the meta device
    with torch.device("cpu" if name.startswith("regnet_") else "meta"):
        keys = gcnet.create_model(name, num_classes=2).state_dict()
    assert classifiers.is_classifier(keys)
    assert name in list(classifiers._candidates(keys))


def test_a_file_of_no_known_kind_is_refused_before_a_model_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(classifiers, "plain_model", lambda *_: pytest.fail("a model was built"))
    blocks = {f"blocks.{n}.attn.qkv.weight": torch.zeros(9, 3) for n in range(3)} | {"head.weight": torch.zeros(5, 3)}
    torch.save(blocks, tmp_path / "m.pth")
    with pytest.raises(gcnet.CheckpointError, match="recognises: mmdet's detectors, torchvision's detectors, classif"):
        gcnet.load_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod."])
def test_prefixes_of_wrappers_are_left_out(resnet, tmp_path, prefix):
    torch.save({f"{prefix}{key}": value for key, value in resnet.state_dict().items()}, tmp_path / "m.pth")
    for loaded in (
        gcnet.load_checkpoint(tmp_path / "m.pth").model,
        gcnet.load_checkpoint(tmp_path / "m.pth", architecture=resnet).model,
    ):
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in resnet.state_dict().items())


def test_names_that_the_given_model_has_are_left_as_they_are(tmp_path):
    model = nn.ModuleDict({"model": nn.Linear(2, 3)})
    torch.save(model.state_dict(), tmp_path / "m.pth")
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth", architecture=nn.ModuleDict({"model": nn.Linear(2, 3)}))
    assert torch.equal(loaded.model["model"].weight, model["model"].weight)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_averaged_weights_beside_those_that_are_taken_are_said(resnet, tmp_path, key):
    torch.save({"state_dict": resnet.state_dict(), key: resnet.state_dict()}, tmp_path / "m.pth")
    assumed = gcnet.load_checkpoint(tmp_path / "m.pth").architecture["assumed"]
    assert assumed[0] == f"weights: those of the last step; the file also has averaged ones ({key})"


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("own", [True, False])
def test_layers_that_share_a_weight_share_it_after_loading(tmp_path, own):
    model = Tied()
    gcnet.save_checkpoint(model, tmp_path / "m") if own else torch.save(model.state_dict(), tmp_path / "m")
    loaded = gcnet.load_checkpoint(tmp_path / "m", architecture=Tied()).model
    assert loaded.first.weight is loaded.second.weight
    assert torch.equal(loaded.first.weight, model.first.weight)


def test_layers_whose_tensors_differ_in_the_file_do_not_share_one(tmp_path):
    apart = Tied().state_dict() | {"second.weight": torch.ones(4, 4, 1, 1)}
    torch.save(apart, tmp_path / "m.pth")
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth", architecture=Tied()).model
    assert torch.equal(loaded.second.weight, torch.ones(4, 4, 1, 1))
    assert torch.equal(loaded.first.weight, apart["first.weight"])
