"""DANet's block against loops over positions and channels, in one, two and three dimensions."""

import pytest
import torch
from torch import Tensor

from gcnet.blocks.dual import DualAttention

SHAPES = [(2, 8, 5), (2, 8, 4, 3), (2, 8, 2, 3, 2)]


def awake(channels: int = 8, dtype=torch.float64, **options) -> DualAttention:
    block = DualAttention(channels, dtype=dtype, **options)
    block.position_gamma.data.fill_(0.8)
    block.channel_gamma.data.fill_(-0.3)
    return block


def by_loops(x: Tensor, block: DualAttention) -> Tensor:
    """x + both attentions, as the authors' two modules compute them (arXiv 1809.02983)."""

    def layer(linear, v: Tensor) -> Tensor:
        return linear.weight @ v + linear.bias

    x_BCP, out = x.flatten(2), x.flatten(2).clone()
    B, C, P = x_BCP.shape
    for b in range(B):
        for i in range(P):
            query = layer(block.query, x_BCP[b, :, i])
            f = torch.stack([(query @ layer(block.key, x_BCP[b, :, j])).exp() for j in range(P)])
            context = sum(f[j] * layer(block.value, x_BCP[b, :, j]) for j in range(P)) / f.sum()
            out[b, :, i] += block.position_gamma * context
        for c in range(C):
            energy = torch.stack([x_BCP[b, c] @ x_BCP[b, d] for d in range(C)])
            f = (energy.max() - energy - (energy.max() - energy).max()).exp()
            out[b, c] += block.channel_gamma * sum(f[d] * x_BCP[b, d] for d in range(C)) / f.sum()
    return out.view_as(x)


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_authors(shape):
    block, x = awake(reduction=2), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(block(x) - x, by_loops(x, block) - x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_permuting_positions_permutes_outputs(shape):
    block, x = awake(), torch.randn(shape, dtype=torch.float64)
    order = torch.randperm(x[0, 0].numel())
    shuffled = x.flatten(2)[:, :, order].view(shape)
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[:, :, order])


def test_each_part_has_its_own_scalar_and_both_start_at_zero():
    block, x = DualAttention(8, dtype=torch.float64), torch.randn(2, 8, 4, 3, dtype=torch.float64)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.position_gamma.grad.abs() > 0
    assert block.channel_gamma.grad.abs() > 0
    whole = awake()
    whole.load_state_dict(block.state_dict() | {k: v for k, v in awake().state_dict().items() if "gamma" in k})
    parts = torch.zeros_like(x)
    for name in ("position_gamma", "channel_gamma"):
        alone = awake()
        alone.load_state_dict(whole.state_dict())
        getattr(alone, name).data.zero_()
        parts += alone(x) - x
    torch.testing.assert_close(whole(x) - x, parts)


def test_a_channel_attends_to_the_channels_least_like_it():
    block = DualAttention(2, reduction=1, dtype=torch.float64)
    block.channel_gamma.data.fill_(1)
    x = torch.tensor([[[3.0, 0.0, 1.0], [0.0, 3.0, 1.0]]], dtype=torch.float64)  # inner products 10, 1; 1, 10
    torch.testing.assert_close(block(x) - x, x.flip(1), rtol=0, atol=1e-3)


def test_large_half_precision_maps_stay_finite():
    block = awake(32, dtype=torch.float16)
    half = 30 * torch.randn(1, 16, 20, 20, dtype=torch.float16)
    x = torch.cat([half, -half], dim=1)  # inner products near +-360,000, beyond float16
    assert torch.isfinite(block(x)).all()
    with torch.autocast("cpu", dtype=torch.float16):
        assert torch.isfinite(awake(32, dtype=torch.float32)(x)).all()
