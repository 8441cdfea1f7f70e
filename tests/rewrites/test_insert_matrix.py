"""Every family x every block: outputs unchanged at the first step, the block is really there, all of it learns."""

import pytest
import torch

import gcnet
from tests.rewrites.models import FAMILIES, awake, build, outputs

SMALL = {"bat": {"block_size": 1}}  # the default wants maps that divide into 7 x 7


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.mark.parametrize("block", gcnet.list_blocks())
@pytest.mark.parametrize("family", FAMILIES)
def test_identity_at_the_first_step_then_alive(models, family, block):
    if family not in models:
        models.clear()
        models[family] = build(family)
    model = models[family]
    names = [name for name, _ in model.named_parameters()]
    x = torch.randn(2, 3, 64, 64)
    result = gcnet.insert(model, block, **SMALL.get(block, {}))
    blocks = gcnet.inserted(result)
    assert blocks
    assert set(model.state_dict()) <= set(result.state_dict())
    assert [name for name, _ in model.named_parameters()] == names
    before, after = outputs(model, x).detach(), outputs(result, x)
    assert float((after.detach() - before).abs().max()) <= 1e-6 * float(before.abs().max())
    after.square().sum().backward()
    assert [name for name, p in gcnet_parameters(blocks) if p.grad is None] == []
    awake(result, blocks)
    assert float((outputs(result, x).detach() - before).norm()) > 1e-7 * float(before.norm())


def gcnet_parameters(blocks):
    return [(f"{name}.{n}", p) for name, block in blocks.items() for n, p in block.named_parameters()]


@pytest.mark.parametrize("position", ["after_1x1", "after_add"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_position_and_unit(models, family, position):
    if family not in models:
        models.clear()
        models[family] = build(family)
    model, x = models[family], torch.randn(1, 3, 64, 64)
    before = outputs(model, x)
    for where in ("last", 0, "before_last"):
        result = gcnet.insert(model, "gc", stages=("c4",), where=where, position=position)
        assert len(gcnet.inserted(result)) == 1
        assert torch.equal(outputs(result, x), before)
        awake(result, gcnet.inserted(result))
        assert not torch.equal(outputs(result, x), before)


BLOCKS = gcnet.list_blocks()
COVER = [(family, BLOCKS[i % len(BLOCKS)]) for i, family in enumerate(FAMILIES)]  # every family and every block


@pytest.mark.slow
@pytest.mark.parametrize(("family", "block"), COVER)
def test_compiles_to_one_graph_and_exports(family, block):
    torch._dynamo.reset()
    model = build(family)
    result = gcnet.insert(getattr(model, "backbone", model), block, **SMALL.get(block, {}))
    awake(result, gcnet.inserted(result))
    x = torch.randn(2, 3, 64, 64)

    def flat(value):
        return torch.cat([v.flatten() for v in value.values()]) if isinstance(value, dict) else value

    expected = flat(result(x)).detach()
    torch.testing.assert_close(flat(torch.compile(result, backend="eager", fullgraph=True)(x)).detach(), expected)
    torch.testing.assert_close(flat(torch.export.export(result, (x,)).module()(x)).detach(), expected)
