"""REPLAYS: what is on a model's record can be done again on the plain model, and gives the same structure."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet
from torchvision.ops import SqueezeExcitation

import gcnet
from gcnet.blocks import NonLocal
from gcnet.rewrites.table import REPLAYS
from gcnet.surgery import record


def tiny() -> nn.Module:
    torch.manual_seed(0)
    down = nn.Sequential(nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16))
    unit = resnet.Bottleneck(4, 4, downsample=down)
    return nn.Sequential(nn.Conv2d(3, 4, 3), unit, SqueezeExcitation(16, 4), NonLocal(16))


VERBS = {
    "insert": lambda model: gcnet.insert(model, "gc", at="1", reduction=4),
    "deform": lambda model: gcnet.deform(model, stages=["c2"]),
    "accelerate": gcnet.accelerate,
    "simplify": lambda model: gcnet.simplify(model, torch.rand(4, 3, 9, 9), max_error=1e9),
    "fold": lambda model: gcnet.fold(model.eval(), torch.rand(1, 3, 9, 9)),
}


def test_the_table_has_every_rewrite():
    assert REPLAYS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_a_replay_gives_the_structure_and_leaves_the_plain_model_as_it_was(verb):
    plain = resnet.resnet18(num_classes=2) if verb == "deform" else tiny()
    done = VERBS[verb](copy.deepcopy(plain))
    modes = [module.training for module in plain.modules()]
    before = copy.deepcopy(plain.state_dict())
    again = REPLAYS[verb](plain, record.rewrites(done)[-1])
    shapes = {name: value.shape for name, value in done.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert [type(module) for module in again.modules()] == [type(module) for module in done.modules()]
    assert record.rewrites(again) == record.rewrites(done)
    assert record.rewrites(plain) == []
    assert [module.training for module in plain.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
