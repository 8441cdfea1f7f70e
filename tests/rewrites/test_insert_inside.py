"""Blocks inside the branch of a Bottleneck: where they sit, what they survive, who has no such place."""

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import resnet

import gcnet
from gcnet.errors import RewriteError
from tests.rewrites.models import awake, build

INSIDE = ("before_3x3", "after_3x3")
FAMILIES = ("torchvision Bottleneck", "torchvision ResNeXt", "timm ResNet")
GA = {"block": "ga", "stages": ("c4", "c5"), "where": "all"}


@pytest.fixture(scope="module")
def bottleneck() -> nn.Module:
    return build("torchvision ResNeXt")


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5


@torch.no_grad()
@pytest.mark.parametrize("position", INSIDE)
def test_the_place_is_behind_the_activation_in_torchvision(bottleneck, position):
    unit, x = bottleneck.layer2[0], torch.randn(1, 64, 8, 8).relu()
    inserted = gcnet.insert(bottleneck, lambda _: Shift(), stages="c3", where=0, position=position).layer2[0]
    x = torch.randn(1, unit.conv1.in_channels, 8, 8).relu()
    out = unit.bn1(unit.conv1(x)).relu() - 0.5 * (position == "before_3x3")
    out = unit.bn2(unit.conv2(out)).relu() - 0.5 * (position == "after_3x3")
    torch.testing.assert_close(inserted(x), (unit.bn3(unit.conv3(out)) + unit.downsample(x)).relu())


@torch.no_grad()
@pytest.mark.parametrize("position", INSIDE)
def test_the_place_in_timm_is_behind_activation_and_anti_aliasing(position):
    model = timm.create_model("resnetblur50", num_classes=10).eval()  # its anti-aliasing halves the map
    unit = model.layer2[0]
    inserted = gcnet.insert(model, lambda _: Shift(), stages="c3", where=0, position=position).layer2[0]
    x = torch.randn(1, unit.conv1.in_channels, 8, 8).relu()
    out = unit.act1(unit.bn1(unit.conv1(x))) - 0.5 * (position == "before_3x3")
    out = unit.aa(unit.act2(unit.bn2(unit.conv2(out)))) - 0.5 * (position == "after_3x3")
    assert out.shape[-1] == 4
    torch.testing.assert_close(inserted(x), (unit.bn3(unit.conv3(out)) + unit.downsample(x)).relu())


@pytest.mark.parametrize("position", INSIDE)
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_have_the_narrow_channels_and_start_as_the_identity(family, position):
    model, x = build(family), torch.randn(2, 3, 64, 64)
    result = gcnet.insert(model, **GA, position=position)
    blocks = gcnet.inserted(result)
    assert len(blocks) == sum(len(getattr(model, f"layer{i}")) for i in (3, 4))
    unit = model.layer4[-1]
    assert blocks[list(blocks)[-1]].channels == (unit.conv2 if position == "before_3x3" else unit.conv3).in_channels
    before, after = model(x), result(x)
    assert torch.equal(after, before)
    after.square().sum().backward()
    assert all(p.grad is not None for block in blocks.values() for p in block.parameters())
    assert set(model.state_dict()) < set(result.state_dict())
    awake(result, blocks)
    assert not torch.allclose(result(x), before)


def full(family: str) -> nn.Module:
    """Blocks at all places of a unit at once."""
    model = build(family)
    for position, block in (("before_3x3", "gc"), ("after_3x3", "ga"), ("after_1x1", "gc"), ("after_add", "se")):
        model = gcnet.insert(model, block, stages=("c3", "c5"), where="all", position=position)
    awake(model, gcnet.inserted(model))
    return model


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_copies_pickles_and_folds_to_the_same(family):
    model, x = full(family), torch.randn(2, 3, 64, 64)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        assert list(gcnet.inserted(other)) == list(gcnet.inserted(model))
    folded = gcnet.fold(model)
    torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)
    kept = [name for name, block in gcnet.inserted(folded).items() if type(block).__name__ == "GeneralizedAttention"]
    assert kept == [name for name, block in gcnet.inserted(model).items() if hasattr(block, "terms")]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_compiles_to_one_graph_and_exports(family):
    model, x = full(family), torch.randn(2, 3, 64, 64)
    expected = model(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("position", INSIDE)
@pytest.mark.parametrize("block", ["gc", "context"])
def test_context_blocks_inside_fold_to_the_same(block, position):
    model, x = build("torchvision Bottleneck"), torch.randn(2, 3, 64, 64)
    model = gcnet.insert(model, block, stages=("c3", "c4", "c5"), position=position)
    awake(model, gcnet.inserted(model))
    torch.testing.assert_close(gcnet.fold(model)(x), model(x), rtol=1e-4, atol=1e-4)


def test_training_with_frozen_norms_takes_the_block_along():
    """The narrow path of a Bottleneck starts behind the block that is inside."""
    model = full("torchvision Bottleneck")
    x = torch.randn(4, 3, 96, 96)
    expected = model(x).detach()
    for name, module in model.named_modules():
        module.training = not isinstance(module, nn.BatchNorm2d)
        assert module.training or "bn" in name or "downsample" in name
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", ["insert", "deform"])
@pytest.mark.parametrize("position", INSIDE)
def test_it_goes_with_deformable_convolutions_in_either_order(bottleneck, position, first):
    x = torch.randn(1, 3, 64, 64)
    steps = {
        "insert": lambda model: gcnet.insert(model, "ga", stages="c5", where="all", position=position),
        "deform": lambda model: gcnet.deform(model, stages="c5"),
    }
    model = bottleneck
    for step in (first, "deform" if first == "insert" else "insert"):
        model = steps[step](model)
    torch.testing.assert_close(model(x), bottleneck(x), rtol=1e-4, atol=1e-4)
    assert len(gcnet.inserted(model)) == 2
    assert hasattr(model.layer4[0].conv2, "conv_offset")


def test_a_checkpoint_brings_it_back(tmp_path):
    made = gcnet.create_model("resnet50", num_classes=3)
    model = gcnet.insert(gcnet.deform(made, stages="c5"), **GA, position="after_3x3", terms="0010", heads=4)
    awake(model, gcnet.inserted(model))
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    again = gcnet.load_checkpoint(tmp_path / "m.safetensors").model
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model.eval()(x))
    assert list(gcnet.inserted(again)) == [
        f"layer{i}.{k}.context_after_3x3" for i, n in ((3, 6), (4, 3)) for k in range(n)
    ]


def test_a_place_inside_holds_one_block_and_does_not_collide_with_the_end(bottleneck):
    once = gcnet.insert(bottleneck, "gc", stages="c5", position="after_3x3")
    with pytest.raises(RewriteError, match=r"already has a block at this place \(layer4\.0\.context_after_3x3\)"):
        gcnet.insert(once, "ga", stages="c5", where="all", position="after_3x3")
    assert len(gcnet.inserted(gcnet.insert(once, "gc", stages="c5"))) == 4


@pytest.mark.parametrize("position", INSIDE)
def test_units_without_such_a_place_are_named_with_what_they_have(position):
    with pytest.raises(
        RewriteError, match=rf"position='{position}': layer2\.0 is a BasicBlock, .*one of layer2\.0\.conv1"
    ):
        gcnet.insert(torchvision.models.resnet18(), "gc", position=position)
    with pytest.raises(RewriteError, match=rf"position='{position}': .* is a ConvNeXtBlock, which has no such place"):
        gcnet.insert(build("timm ConvNeXt"), "gc", position=position)


def test_between_units_there_is_no_inside(bottleneck):
    with pytest.raises(RewriteError, match=r"where='before_last', the default of 'ga', between two; give where='all'"):
        gcnet.insert(bottleneck, "ga", position="after_3x3")
    with pytest.raises(
        RewriteError, match=r"position='before_3x3' lies inside a unit, but where='before_last' between"
    ):
        gcnet.insert(bottleneck, "gc", where="before_last", position="before_3x3")
    with pytest.raises(RewriteError, match="use one of 'after_1x1', 'after_add', 'before_3x3', 'after_3x3'"):
        gcnet.insert(bottleneck, "gc", position="after_conv2")
    assert isinstance(bottleneck.layer4[0], resnet.Bottleneck)
