"""The path of few calls has the values of the general one, and stands aside where it must."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gcnet
from gcnet import ops
from gcnet.blocks.context import ContextBlock
from gcnet.ops.context_vectors import Branch, cpu

CHOICES = [
    {},
    {"norm": False, "bias": False},
    {"activation": None},
    {"activation": "gelu", "fusion": "both", "gate": "identity"},
    {"pool": "average", "fusion": "scale", "activation": "silu"},
    {"transform": "linear", "fusion": "both", "gate": "hard_sigmoid"},
]
SHAPES = [(1, 16, 5), (3, 16, 5), (1, 16, 4, 6), (3, 16, 4, 6), (1, 16, 2, 3, 4), (2, 16, 2, 3, 4)]


def awake(**choice) -> ContextBlock:
    block = ContextBlock(16, reduction=4, **choice).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


@pytest.fixture
def never_cpu(monkeypatch):
    return lambda: monkeypatch.setattr(cpu, "serves", lambda *call: False)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_two_paths_of_a_block_agree(choice, shape, last, never_cpu):
    block, x = awake(**choice), torch.randn(shape).double()
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    with torch.no_grad():
        assert cpu.serves(x, None, [])
        found = block(x)
        never_cpu()
        torch.testing.assert_close(found, block(x), rtol=1e-12, atol=1e-12)
    assert found.stride() == x.stride()


@pytest.mark.parametrize("shape", SHAPES)
def test_pools_are_those_of_the_ops_on_any_layout(shape):
    x = torch.randn(*shape, 2).double()[..., 0]  # neither memory format
    key = torch.randn(16).double()
    with torch.no_grad():
        torch.testing.assert_close(cpu.pool(x, key).reshape(-1, 16), ops.attention_pool(x, key))
        torch.testing.assert_close(cpu.pool(x, None).reshape(-1, 16), ops.average_pool(x))


def test_it_serves_plain_inference_alone():
    x = torch.randn(1, 4, 3, 3)
    assert not cpu.serves(x, None, [])
    with torch.no_grad():
        assert cpu.serves(x, None, [])
        assert not cpu.serves(x.bfloat16(), None, [])
        assert not cpu.serves(x.to("meta"), None, [])
        with torch.autocast("cpu"):
            assert not cpu.serves(x, None, [])
    with torch.inference_mode():
        assert cpu.serves(x, None, [])


def test_hooks_on_the_layers_still_run():
    block, x, seen = awake(), torch.randn(1, 16, 3, 3).double(), []
    for layer in (block.add, block.add.reduce, block.add.norm, block.add.activation, block.add.expand):
        with torch.no_grad():
            expected = block(x)
            handle = layer.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
            torch.testing.assert_close(block(x), expected)
            handle.remove()
    assert seen == ["Bottleneck", "Linear", "LayerNorm", "ReLU", "Linear"]


def test_layers_that_were_exchanged_are_called():
    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    block, x = awake(norm=False, activation=None, bias=False), torch.randn(1, 16, 3, 3).double()
    twice = Twice(4, 16, bias=False).double()
    twice.load_state_dict(block.add.expand.state_dict())
    with torch.no_grad():
        before = block(x) - x
        block.add.expand = twice
        torch.testing.assert_close(block(x) - x, 2 * before)
    nn.utils.parametrizations.weight_norm(block.add.reduce)
    with torch.no_grad():
        torch.testing.assert_close(block(x) - x, 2 * before)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("folded", [False, True])
def test_a_trace_with_one_image_serves_several(folded):
    unit = nn.Sequential(nn.Conv2d(6, 16, 1), awake()).double().eval()
    model = gcnet.fold(unit, torch.randn(2, 6, 3, 3).double()) if folded else unit
    with torch.no_grad():
        if folded:
            assert model(torch.randn(1, 6, 3, 3).double()).shape == (1, 16, 3, 3)
        traced = torch.jit.trace(model, torch.randn(1, 6, 3, 3).double(), check_trace=False)
        x = torch.randn(3, 6, 4, 5).double()
        torch.testing.assert_close(traced(x), unit(x), rtol=1e-10, atol=1e-10)


def test_several_images_are_pooled_apart():
    x, key = torch.randn(2, 8, 3, 3).double(), torch.randn(8).double()
    with torch.no_grad():
        apart = torch.stack([cpu.pool(image[None], key) for image in x])
        torch.testing.assert_close(cpu.pool(x, key), apart)
        weights = (torch.randn(3, 8).double(), None, None, None, torch.randn(5, 3).double(), torch.randn(5).double())
        reduce, *_, expand, bias = weights
        expected = F.linear(F.hardswish(F.linear(apart, reduce)), expand, bias)
        torch.testing.assert_close(cpu.transform(apart, Branch(weights, 1e-5, "hard_swish")), expected)


def test_an_exported_graph_holds_the_general_path():
    """ONNX runtimes compute something else for a softmax or a norm of a single vector."""
    block, x = awake(), torch.randn(1, 16, 4, 4).double()
    with torch.no_grad():
        program = torch.export.export(block, (x,))
        assert not any("mv" in str(node.target) for node in program.graph.nodes)
        torch.testing.assert_close(program.module()(x), block(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(64, 72), (61, 72), (61, 69)])  # sixteen parts, eight, one
def test_large_maps_with_neighbouring_channels_are_pooled_in_parts(size):
    x = torch.randn(1, *size, 64).double().movedim(3, 1)
    assert cpu._parts(x.flatten(2)[0]) == {4608: 16, 4392: 8, 4209: 1}[size[0] * size[1]]
    key = torch.randn(64).double()
    with torch.no_grad():
        torch.testing.assert_close(cpu.pool(x, key)[None], ops.attention_pool(x, key), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(cpu.pool(x, None)[None], ops.average_pool(x), rtol=1e-12, atol=1e-12)
