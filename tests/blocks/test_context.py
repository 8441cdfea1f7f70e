"""The context framework against its equations, written out with loops; its size against the paper's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.blocks import ContextBlock, GlobalContext, SimplifiedNonLocal, SqueezeExcitation

GATES = {"sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid, "identity": lambda t: 2 * torch.sigmoid(t)}
ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "hard_swish": F.hardswish, None: lambda t: t}


def awake(block: nn.Module) -> nn.Module:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double()


def by_equation(block: ContextBlock, x: Tensor, *, activation: str | None, gate: str) -> Tensor:
    """Equation 4 of the paper, image by image, from the raw parameters."""
    w = dict(block.named_parameters())

    def transform(name: str, context: Tensor) -> Tensor:
        if f"{name}.project.weight" in w:
            return w[f"{name}.project.weight"] @ context
        t = w[f"{name}.reduce.weight"] @ context + w.get(f"{name}.reduce.bias", 0)
        if f"{name}.norm.weight" in w:
            t = (t - t.mean()) / (t.var(correction=0) + 1e-5).sqrt()
            t = t * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]
        return w[f"{name}.expand.weight"] @ ACTIVATIONS[activation](t) + w.get(f"{name}.expand.bias", 0)

    images = []
    for image in x:
        columns = image.flatten(1)
        if "key.weight" in w:
            alpha = (w["key.weight"][0] @ columns + w["key.bias"]).exp()
            alpha = alpha / alpha.sum()
        else:
            alpha = torch.full((columns.shape[1],), 1 / columns.shape[1], dtype=x.dtype)
        context = sum(alpha[j] * columns[:, j] for j in range(columns.shape[1]))
        out = columns
        if block.scale is not None:
            out = out * GATES[gate](transform("scale", context))[:, None]
        if block.add is not None:
            out = out + transform("add", context)[:, None]
        images.append(out.view_as(image))
    return torch.stack(images)


@pytest.mark.parametrize("shape", [(2, 8, 11), (2, 8, 3, 5), (1, 8, 2, 3, 2)])
@pytest.mark.parametrize("pool", ["attention", "average"])
@pytest.mark.parametrize("transform", ["bottleneck", "linear"])
@pytest.mark.parametrize("fusion", ["add", "scale", "both"])
def test_every_pool_transform_and_fusion(shape, pool, transform, fusion):
    block = awake(ContextBlock(8, pool=pool, transform=transform, fusion=fusion, reduction=2))
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_equation(block, x, activation="relu", gate="sigmoid"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_every_option_of_the_bottleneck(activation, norm, bias):
    block = awake(ContextBlock(8, norm=norm, activation=activation, bias=bias, hidden=3))
    assert block.add.reduce.out_features == 3
    x = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_equation(block, x, activation=activation, gate="sigmoid"))


@pytest.mark.parametrize("gate", GATES)
def test_every_gate(gate):
    block = awake(ContextBlock(8, fusion="scale", gate=gate, reduction=2))
    x = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), by_equation(block, x, activation="relu", gate=gate))


def test_the_named_blocks_are_the_framework_with_their_defaults():
    gc, snl, se = GlobalContext(32), SimplifiedNonLocal(32), SqueezeExcitation(32)
    assert gc.pool == "attention"
    assert gc.fusion == "add"
    assert isinstance(gc.add.norm, nn.LayerNorm)
    assert gc.add.reduce.out_features == 2
    assert snl.add.project.bias is None
    assert se.pool == "average"
    assert se.fusion == "scale"
    assert se.scale.norm is None
    for block in (gc, snl, se):
        x = torch.randn(2, 32, 3, 3, dtype=torch.float64)
        expected = by_equation(awake(block), x, activation="relu", gate="sigmoid")
        torch.testing.assert_close(block(x), expected)


def test_the_published_gate_starts_by_halving():
    x = torch.randn(2, 32, 4, 4)
    assert torch.equal(SqueezeExcitation(32)(x), x / 2)
    assert torch.equal(SqueezeExcitation(32, gate="identity")(x), x)


def test_initialisation_is_the_published_one():
    block = GlobalContext(4096, reduction=1, transform="bottleneck")
    assert float(block.key.weight.detach().std()) == pytest.approx((2 / 4096) ** 0.5, rel=0.1)
    assert not block.key.bias.any()
    assert not block.add.expand.weight.any()
    assert not block.add.expand.bias.any()
    assert block.add.reduce.weight.any()


def test_permuting_positions_permutes_outputs():
    block = awake(GlobalContext(8, fusion="both", reduction=2))
    x, order = torch.randn(2, 8, 13, dtype=torch.float64), torch.randperm(13)
    torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])


def test_a_shift_of_all_logits_changes_nothing():
    block = awake(GlobalContext(8, reduction=2))
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    before = block(x)
    block.key.bias.data += 7
    torch.testing.assert_close(block(x), before)
