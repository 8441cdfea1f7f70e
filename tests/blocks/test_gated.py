"""The zero gate around any block: where it starts, what gamma = 1 means, what learns."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from gcnet.blocks.gated import Gated


def inner(channels: int = 6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.Sigmoid())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_starts_as_the_identity_bit_for_bit(dtype, train):
    block = Gated(inner(), dtype=dtype).to(dtype).train(train)
    x = 100 * torch.randn(3, 6, 7, 5, dtype=dtype)
    y = block(x)
    assert y.dtype == dtype
    assert torch.equal(y, x)


def test_gamma_one_is_the_block_itself_and_gamma_half_lies_between():
    block = Gated(inner()).double().eval()
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    block.gamma.data.fill_(1)
    torch.testing.assert_close(block(x), block.block(x), rtol=1e-14, atol=1e-14)
    block.gamma.data.fill_(0.5)
    torch.testing.assert_close(block(x), (x + block.block(x)) / 2, rtol=1e-14, atol=1e-14)


def test_every_parameter_has_a_gradient_at_the_first_step_and_learns_once_gamma_moves():
    block = Gated(inner())
    x = torch.randn(2, 6, 7, 5)
    block(x).square().sum().backward()
    gradients = {name: p.grad for name, p in block.named_parameters()}
    assert all(g is not None for g in gradients.values())
    assert gradients["gamma"].abs() > 0
    assert all(not g.any() for name, g in gradients.items() if name != "gamma")
    torch.optim.SGD(block.parameters(), 0.01).step()
    block.zero_grad()
    block(x).square().sum().backward()
    assert block.block[0].weight.grad.any()


def test_the_gradient_of_x_at_the_start_is_that_of_the_identity():
    x = torch.randn(2, 6, 7, 5, requires_grad=True)
    seed = torch.randn(2, 6, 7, 5)
    Gated(inner())(x).backward(seed)
    assert torch.equal(x.grad, seed)


def test_copies_and_saved_blocks_answer_the_same():
    block = Gated(inner()).eval()
    block.gamma.data.fill_(0.3)
    x = torch.randn(2, 6, 7, 5)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), block(x))
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    fresh = Gated(inner()).eval()
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(x), block(x))


def test_the_dtype_of_x_is_kept_under_autocast():
    block = Gated(nn.Conv2d(6, 6, 1))
    block.gamma.data.fill_(0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert block(torch.randn(2, 6, 4, 4, dtype=dtype)).dtype == dtype


def test_an_empty_batch_passes():
    class Undefined(nn.Module):
        def forward(self, x):
            return x.view(x.shape[0], -1).view(x.shape)  # raises for an empty batch

    y = Gated(Undefined())(torch.randn(0, 6, 4, 4, dtype=torch.bfloat16))
    assert y.shape == (0, 6, 4, 4)
    assert y.dtype == torch.bfloat16


def test_compile_and_export_give_the_same():
    block = Gated(inner()).eval()
    block.gamma.data.fill_(0.3)
    x = torch.randn(2, 6, 7, 5)
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), block(x))
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), block(x))


def test_a_block_that_changes_the_shape_is_named():
    with pytest.raises(ValueError, match=r"Conv2d turned shape \(2, 6, 4, 4\) into \(2, 3, 4, 4\)"):
        Gated(nn.Conv2d(6, 3, 1))(torch.randn(2, 6, 4, 4))
