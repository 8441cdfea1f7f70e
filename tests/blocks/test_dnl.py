"""The disentangled non-local block against loops over positions, in one, two and three dimensions."""

import pytest
import torch
from torch import Tensor, nn

from gcnet.blocks.disentangled_nonlocal import DisentangledNonLocal

SHAPES = [(2, 8, 5), (2, 8, 4, 3), (2, 8, 2, 3, 2)]


def awake(**options) -> DisentangledNonLocal:
    block = DisentangledNonLocal(8, dtype=torch.float64, **options)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    return block


def by_loops(x: Tensor, block: DisentangledNonLocal, temperature: float) -> Tensor:
    """W_z sum_j (pairwise_ij + unary_j) W_v x_j, equation by equation (arXiv 2006.06668)."""
    x_BCP = x.flatten(2)
    B, _, P = x_BCP.shape
    out = torch.empty_like(x_BCP)
    for b in range(B):
        points = [x_BCP[b, :, j] for j in range(P)]
        queries, keys = ([layer.weight @ v for v in points] for layer in (block.query, block.key))
        values = [block.value.weight @ v + block.value.bias for v in points]
        mean_query, mean_key = sum(queries) / P, sum(keys) / P
        unary = torch.stack([(block.mask.weight[0] @ v).exp() for v in points])
        for i in range(P):
            logits = [(queries[i] - mean_query) @ (keys[j] - mean_key) for j in range(P)]
            pairwise = (torch.stack(logits) / len(mean_key) ** 0.5 / temperature).exp()
            weights = pairwise / pairwise.sum() + unary / unary.sum()
            out[b, :, i] = block.out.weight @ sum(a * v for a, v in zip(weights, values, strict=True))
            if block.out.bias is not None:
                out[b, :, i] += block.out.bias
    return out.view_as(x)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"reduction": 4, "temperature": 0.5}])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_paper(shape, options):
    block, x = awake(**options), torch.randn(shape, dtype=torch.float64)
    expected = by_loops(x, block, options.get("temperature", 0.05))
    torch.testing.assert_close(block(x) - x, expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_follows_the_last_layer(shape):
    block, x = awake(norm="batch"), torch.randn(shape, dtype=torch.float64)
    assert block.out.bias is None
    y = by_loops(x, block, 0.05)
    dims = [d for d in range(y.ndim) if d != 1]
    centred = (y - y.mean(dims, keepdim=True)) / (y.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt()
    per_channel = (-1, *[1] * (y.ndim - 2))
    expected = centred * block.norm.weight.view(per_channel) + block.norm.bias.view(per_channel)
    torch.testing.assert_close(block(x) - x, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_permuting_positions_permutes_outputs(shape):
    block, x = awake(), torch.randn(shape, dtype=torch.float64)
    order = torch.randperm(x[0, 0].numel())
    shuffled = x.flatten(2)[:, :, order].view(shape)
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[:, :, order])


def test_without_queries_every_position_gets_the_same_context():
    block, x = awake(), torch.randn(2, 8, 4, 3, dtype=torch.float64)
    nn.init.zeros_(block.query.weight)
    change = block.context(x).flatten(2)
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change))
    assert change.abs().min() > 0


@pytest.mark.parametrize("norm", [None, "batch"])
def test_only_the_last_layer_starts_at_zero(norm):
    block = DisentangledNonLocal(64, norm=norm)
    zero = {name for name, p in block.named_parameters() if not p.any()}
    last = {"out.weight", "out.bias"} if norm is None else {"norm.weight", "norm.bias"}
    assert zero == {"value.bias"} | last
    assert block.query.weight.std().item() == pytest.approx(0.01, rel=0.1)
    x = torch.randn(2, 64, 5)
    assert torch.equal(block(x), x)
