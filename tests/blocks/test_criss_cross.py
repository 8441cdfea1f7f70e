"""CCNet's block against loops over the cross, its two rounds, and the start."""

import pytest
import torch
from torch import Tensor

from gcnet.blocks.criss_cross import CrissCross


def one_round(x: Tensor, block: CrissCross) -> Tensor:
    """x + gamma * attention, position by position, from the paper's equations 1 and 2 (arXiv 1811.11721)."""

    def layer(conv, v: Tensor) -> Tensor:
        return conv.weight[:, :, 0, 0] @ v + conv.bias

    B, _, H, W = x.shape
    out = torch.empty_like(x)
    for b in range(B):
        for h in range(H):
            for w in range(W):
                cross = {(h, j) for j in range(W)} | {(i, w) for i in range(H)}
                query = layer(block.query, x[b, :, h, w])
                f = {(i, j): (query @ layer(block.key, x[b, :, i, j])).exp() for i, j in cross}
                context = sum(f[i, j] * layer(block.value, x[b, :, i, j]) for i, j in cross) / sum(f.values())
                out[b, :, h, w] = x[b, :, h, w] + block.gamma * context
    return out


@torch.no_grad()
@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_values_are_those_of_the_paper(recurrence):
    block = CrissCross(8, reduction=2, recurrence=recurrence, dtype=torch.float64)
    block.gamma.fill_(0.8)
    x = expected = torch.randn(2, 8, 4, 3, dtype=torch.float64)
    for _ in range(recurrence):
        expected = one_round(expected, block)
    torch.testing.assert_close(block(x) - x, expected - x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("recurrence", "reached"), [(1, 5 + 7 - 1), (2, 35)])
def test_two_rounds_reach_every_position(recurrence, reached):
    block = CrissCross(8, recurrence=recurrence)
    block.gamma.data.fill_(1)
    x = torch.randn(1, 8, 7, 5, requires_grad=True)
    block(x)[0, :, 3, 2].sum().backward()
    assert x.grad.any(dim=1).sum() == reached


def test_the_start_gives_gamma_a_gradient():
    block = CrissCross(8)
    x = torch.randn(2, 8, 4, 3)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.gamma.grad.abs() > 0


def test_parameters_are_those_of_the_authors():
    sizes = {name: tuple(p.shape) for name, p in CrissCross(64).named_parameters()}
    assert sizes == {
        "gamma": (1,),
        "query.weight": (8, 64, 1, 1),
        "query.bias": (8,),
        "key.weight": (8, 64, 1, 1),
        "key.bias": (8,),
        "value.weight": (64, 64, 1, 1),
        "value.bias": (64,),
    }


def test_other_dimensions_are_refused():
    for shape in [(2, 8, 9), (2, 8, 3, 3, 3)]:
        with pytest.raises(ValueError, match=r"expected \(B, C, H, W\)$"):
            CrissCross(8)(torch.zeros(shape))
