"""Training with frozen norms: the context from the narrow map gives the same outputs and gradients."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

import gcnet
from gcnet.surgery import narrow
from tests.rewrites.models import awake

BLOCKS = [("gc", {}), ("se", {}), ("snl", {}), ("context", {"fusion": "both", "pool": "average"})]


def model_with(block: str, options: dict, frozen: bool = False) -> nn.Module:
    norm = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
    model = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 4, width_per_group=16, norm_layer=norm)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
        elif name.endswith("running_mean"):
            nn.init.normal_(tensor, std=0.1)
    model = gcnet.insert(model, block, **options)
    awake(model, gcnet.inserted(model))
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def wide(model: nn.Module) -> nn.Module:
    """The same model on the ordinary path: a hook on a block switches the short one off."""
    model = copy.deepcopy(model)
    for block in gcnet.inserted(model).values():
        block.register_forward_hook(lambda module, args, output: None)
    return model


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(g is not None for g in found.values())
    return {**found, "input": x.grad}  # type: ignore[dict-item]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(("block", "options"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_outputs_and_gradients_are_those_of_the_ordinary_path(block, options, frozen, batch, monkeypatch):
    monkeypatch.setattr(narrow, "pays", lambda h: True)
    model = model_with(block, options, frozen)
    other = wide(model)
    unit = model.layer3[0]
    assert narrow.applies(unit.conv3, unit.bn3, unit.context)
    assert not narrow.applies(other.layer3[0].conv3, other.layer3[0].bn3, other.layer3[0].context)
    x = torch.randn(batch, 3, 64, 64).double()
    torch.testing.assert_close(model(x), other(x), rtol=1e-10, atol=1e-12)
    ours, theirs = gradients(model, x), gradients(other, x)
    for name, expected in theirs.items():
        scale = expected.norm().clamp_min(1e-12)
        if name.endswith("key.bias"):
            assert torch.equal(ours[name], torch.zeros_like(expected))
        else:
            assert (ours[name] - expected).norm() / scale < 1e-10, name


def test_small_maps_take_the_ordinary_path(monkeypatch):
    model, seen = model_with("gc", {"stages": ("c2", "c5")}), []
    step = narrow.context_from_narrow_map
    monkeypatch.setattr(narrow, "context_from_narrow_map", lambda *args: seen.append(args[3].shape) or step(*args))
    model(torch.randn(1, 3, 64, 64).double())
    assert seen == [(1, 16, 16, 16)]  # c2; the map of c5 has 4 positions


def test_batch_statistics_take_the_ordinary_path():
    model = model_with("gc", {}).train()
    unit = model.layer3[0]
    assert not narrow.applies(unit.conv3, unit.bn3, unit.context)
    model(torch.randn(2, 3, 64, 64).double()).sum().backward()
    assert unit.bn3.num_batches_tracked == 1


def test_what_sits_on_a_layer_keeps_the_ordinary_path():
    model = model_with("nl", {"stages": "c4", "where": "all"})
    assert not narrow.applies(model.layer3[0].conv3, model.layer3[0].bn3, model.layer3[0].context)
    model = model_with("gc", {})
    assert not narrow.applies(model.layer3[0].conv2, model.layer3[0].bn3, model.layer3[0].context)  # 3x3


def test_it_starts_as_the_identity(monkeypatch):
    monkeypatch.setattr(narrow, "pays", lambda h: True)
    plain = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 4, width_per_group=16).double().eval()
    model = gcnet.insert(plain, "gc")
    x = torch.randn(2, 3, 64, 64).double()
    assert torch.equal(model(x), plain(x))  # in eval mode bit for bit: the norms are not merged there
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    torch.testing.assert_close(model(x), plain(x), rtol=1e-12, atol=1e-12)
