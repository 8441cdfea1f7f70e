"""A unit with room for blocks takes the place of torchvision's: what the old one was, the new one is."""

import copy
import pickle
from types import MethodType

import pytest
import torch
from torch import nn
from torchvision.models import resnet

import gcnet
from gcnet.surgery.places import replace
from gcnet.surgery.units import BasicBlock, Bottleneck, remade, with_slots

KINDS = {resnet.BasicBlock: BasicBlock, resnet.Bottleneck: Bottleneck}


def negated(module, args, output):
    return -output


def doubled(self, x):
    return 2 * type(self).forward(self, x)


class Kept(nn.Module):
    """Calls its units from a list and a dictionary, beside an attribute that is no child."""

    def __init__(self):
        super().__init__()
        self.first, self.second = resnet.BasicBlock(8, 8), resnet.BasicBlock(8, 8)
        self.listed, self.named = [self.first], {"second": self.second}
        object.__setattr__(self, "alias", self.first)

    def forward(self, x):
        return self.named["second"](self.listed[0](x))


def unit_of(kind):
    unit = kind(32, 32 // kind.expansion).eval()
    unit.bn2.train()
    unit.conv1.weight.requires_grad_(False)
    unit.mine = {"a": [1]}
    unit.register_forward_hook(negated)
    unit.register_buffer("count", torch.ones(1), persistent=False)
    return unit


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_old_unit_is_lost(kind):
    model = nn.Sequential(unit_of(kind))
    old, state = model[0], model.state_dict()
    x = torch.randn(2, 32, 5, 5)
    expected = model.eval()(x)
    old.bn2.train()
    modes = [module.training for module in model.modules()]
    assert with_slots(model, ["0"]) is model
    unit = model[0]
    assert type(old) is kind
    assert type(unit) is KINDS[kind]
    assert list(model.state_dict()) == list(state)
    assert all(value is state[name] or torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not unit.conv1.weight.requires_grad
    assert unit.mine is old.mine
    assert unit.count is old.count
    assert unit.context is None
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again.eval()(x), expected, rtol=0, atol=0)


def test_a_unit_that_is_the_model_itself_gives_way_too():
    unit = unit_of(resnet.Bottleneck)
    unit.gcnet_classes = ["a"]
    new = with_slots(unit, [""])
    assert type(new) is Bottleneck
    assert new.gcnet_classes == ["a"]
    inserted = gcnet.insert(unit, "gc", stages="c0")
    assert type(inserted) is Bottleneck
    assert isinstance(inserted.context, nn.Module)
    assert type(unit) is resnet.Bottleneck


def test_subclasses_and_units_with_room_stay_as_they_are():
    class Mine(resnet.Bottleneck):
        pass

    model = nn.Sequential(Mine(32, 8), with_slots(resnet.Bottleneck(32, 8), [""]))
    before = list(model)
    assert list(with_slots(model, ["0", "1"])) == before
    assert type(model[0]) is Mine


def test_a_method_put_on_the_unit_belongs_to_the_new_one():
    unit = resnet.BasicBlock(8, 8).eval()
    unit.forward = MethodType(doubled, unit)
    new = remade(unit, BasicBlock)
    assert new.forward.__self__ is new
    assert unit.forward.__self__ is unit


def test_units_that_the_model_calls_from_a_list_run_their_blocks():
    model = gcnet.insert(Kept(), "gc", stages="c0", reduction=4).eval()
    assert model.listed[0] is model.first is model.alias
    assert model.named["second"] is model.second
    called = []
    for block in gcnet.inserted(model).values():
        block.register_forward_hook(lambda *_: called.append(1))
    model(torch.randn(1, 8, 4, 4))
    assert len(called) == 2


def test_a_module_under_two_names_is_replaced_at_both():
    shared, new = nn.ReLU(), nn.Sigmoid()
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    assert replace(model, {shared: new}) is model
    assert model["a"] is model["b"][0] is new
