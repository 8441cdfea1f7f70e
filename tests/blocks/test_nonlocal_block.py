"""What is particular to the non-local block: sub-sampling, norm, scale, initialisation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gcnet.blocks import NonLocal


def awake(block: NonLocal) -> NonLocal:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block.double()


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_subsampling_before_means_keys_of_a_pooled_map(pairwise):
    block = awake(NonLocal(6, pairwise=pairwise, subsample="before", scale=0.7))
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    queries, keys = x.flatten(2).transpose(1, 2), F.max_pool2d(x, 2).flatten(2).transpose(1, 2)
    theta = queries if block.theta is None else block.theta(queries)
    phi = keys if block.phi is None else block.phi(keys)
    if pairwise == "concatenation":
        f = (theta @ block.concat_weight[:3])[:, :, None] + (phi @ block.concat_weight[3:])[:, None]
        weights = 0.7 * f.relu() / keys.shape[1]
    else:
        f = 0.7 * theta @ phi.transpose(1, 2)
        weights = f / keys.shape[1] if pairwise == "dot_product" else f.softmax(2)
    expected = x + block.out(weights @ block.g(keys)).transpose(1, 2).view_as(x)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("subsample", ["before", "after"])
@pytest.mark.parametrize(
    ("shape", "keys"),
    [((9,), 4), ((1,), 1), ((6, 7), 9), ((1, 6), 3), ((3, 6, 4), 18), ((2, 1, 6), 6)],
)
def test_sizes_of_the_pooled_map(subsample, shape, keys):
    """2 in 1D, 2x2 in 2D, (1, 2, 2) in 3D, none along a size of 1."""
    theta, phi, g = NonLocal(4, subsample=subsample).embed(torch.randn(1, 4, *shape))
    assert theta.shape[1] == torch.Size(shape).numel()
    assert phi.shape[1] == g.shape[1] == keys


def test_batch_norm_follows_the_last_layer_and_counts():
    block = NonLocal(8, norm="batch")
    assert block.out.bias is None
    assert not block.norm.weight.any()
    awake(block)
    x = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    context = block.context(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(context.mean(1), block.norm.bias)
    torch.testing.assert_close(context.std(1, correction=0), block.norm.weight.abs(), rtol=1e-3, atol=1e-4)
    assert block.norm.num_batches_tracked == 1


def test_sync_batch_norm_can_replace_the_norm():
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(NonLocal(8, norm="batch")).norm, nn.SyncBatchNorm)


def test_initialisation_is_the_published_one():
    block = NonLocal(512, pairwise="concatenation")
    for layer in (block.theta, block.phi, block.g):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not layer.bias.any()
    assert not block.out.weight.any()
    assert not block.out.bias.any()


def test_scale_must_be_a_number():
    with pytest.raises(TypeError, match=r"scale=True is a bool; give a number, for example 64\*\*-0.5"):
        NonLocal(64, scale=True)


def test_permuting_positions_permutes_outputs():
    block = awake(NonLocal(6, pairwise="concatenation"))
    x, order = torch.randn(2, 6, 13, dtype=torch.float64), torch.randperm(13)
    torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])
