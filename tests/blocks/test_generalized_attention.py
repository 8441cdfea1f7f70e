"""Generalized attention against mmcv's, live, for every choice of terms, and its promises."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import gcnet
from gcnet.blocks import GeneralizedAttention

TERMS = ["".join(digits) for digits in itertools.product("01", repeat=4) if "1" in digits]
NAMES = {  # ours: mmcv's
    "query.weight": "query_conv.weight",
    "key.weight": "key_conv.weight",
    "value.weight": "value_conv.weight",
    "columns.weight": "appr_geom_fc_x.weight",
    "rows.weight": "appr_geom_fc_y.weight",
    "content_bias": "appr_bias",
    "position_bias": "geom_bias",
    "out.weight": "proj_conv.weight",
    "out.bias": "proj_conv.bias",
    "gamma": "gamma",
}


def mmcvs(channels: int, **options) -> nn.Module:
    from mmcv.cnn.bricks.generalized_attention import GeneralizedAttention as Theirs

    theirs = Theirs(channels, **options).double()
    theirs.gamma.data.fill_(0.8)
    theirs.proj_conv.bias.data.normal_()
    return theirs


def ours_from(theirs: nn.Module, channels: int, **options) -> GeneralizedAttention:
    block = GeneralizedAttention(channels, dtype=torch.float64, **options)
    state = theirs.state_dict()
    assert {NAMES[name] for name in block.state_dict()} == {name for name in state if state[name].any()}
    block.load_state_dict({n: state[NAMES[n]].reshape(p.shape) for n, p in block.state_dict().items()})
    return block


def agree(a: Tensor, b: Tensor) -> bool:
    """To 1e-10 of the norm; some gradients are exactly zero where there is a single key or a single row."""
    return bool((a - b).norm() <= 1e-10 * b.norm() + 1e-13)


def compare(theirs: nn.Module, block: GeneralizedAttention, x: Tensor) -> None:
    ours_x, theirs_x, seed = x.clone().requires_grad_(), x.clone().requires_grad_(), torch.randn_like(x)
    y, expected = block(ours_x), theirs(theirs_x)
    assert agree(y - x, expected - x)
    y.backward(seed)
    expected.backward(seed)
    assert agree(ours_x.grad - seed, theirs_x.grad - seed)
    gradients = dict(theirs.named_parameters())
    for name, parameter in block.named_parameters():
        assert agree(parameter.grad, gradients[NAMES[name]].grad.reshape(parameter.shape)), name


@pytest.mark.parametrize("terms", TERMS)
def test_outputs_and_gradients_are_those_of_mmcv(terms):
    # With the second term and not the fourth mmcv mixes up rows and columns of the query, and fails where the map is
    # not square; with the fourth on and its vector at zero it computes what it means to.
    fails = terms[1] == "1" and terms[3] == "0"
    theirs = mmcvs(16, num_heads=4, attention_type=terms[:3] + "1" if fails else terms)
    if fails:
        theirs.geom_bias.data.zero_()
    compare(theirs, ours_from(theirs, 16, heads=4, terms=terms), torch.randn(2, 16, 7, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("channels", "options", "size"),
    [
        (16, {"heads": 8, "kv_stride": 1}, (5, 9)),
        (16, {"heads": 1, "kv_stride": 3}, (8, 3)),
        (20, {"heads": 3}, (4, 5)),  # 18 channels in three heads
        (16, {"heads": 2, "position_channels": 24}, (5, 4)),
        (12, {"heads": 2}, (1, 1)),
        (12, {"heads": 2}, (13, 1)),
    ],
)
@pytest.mark.parametrize("terms", ["1111", "0010", "1010"])
def test_other_heads_strides_and_sizes_too(channels, options, size, terms):
    if terms != "1111":
        options = {key: value for key, value in options.items() if key != "position_channels"}
    renamed = {"heads": "num_heads", "position_channels": "position_embedding_dim", "kv_stride": "kv_stride"}
    theirs = mmcvs(channels, attention_type=terms, **{renamed[key]: value for key, value in options.items()})
    block = ours_from(theirs, channels, terms=terms, **options)
    compare(theirs, block, torch.randn(2, channels, *size, dtype=torch.float64))


def test_only_the_key_s_content_gives_one_context_for_all_positions():
    block = GeneralizedAttention(16, terms="0010")
    assert block.context(torch.randn(2, 16, 5, 7)).shape == (2, 16, 1, 1)
    assert block.query is None


def test_positions_count_by_their_difference():
    """With relative positions alone and a stride of one, inside a map the weights move along with the query."""
    block = GeneralizedAttention(8, terms="0001", heads=1, kv_stride=1, dtype=torch.float64)
    rows = block._features(block.rows, 6, 6, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(rows[:, 1:, 1:], rows[:, :-1, :-1])
    assert not torch.allclose(rows[:, 1:], rows[:, :-1])


def test_it_starts_with_the_published_spread_and_gives_gamma_a_gradient():
    torch.manual_seed(0)
    block, x = GeneralizedAttention(256), torch.randn(1, 256, 5, 5)
    assert block.query.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert block.rows.weight.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert block.content_bias.abs().max() <= 64**-0.5
    assert block.content_bias.std().item() == pytest.approx((64 * 3) ** -0.5, rel=0.2)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.gamma.grad.abs() > 0


def test_no_matrix_of_queries_and_keys_is_built():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.numel = max(self.numel, out.numel())
            return out

    H, W, heads = 60, 70, 4
    keys = (H // 2) * (W // 2)
    block, x = GeneralizedAttention(16, heads=heads).requires_grad_(False), torch.randn(1, 16, H, W)
    with Largest() as seen:
        block(x)
    assert 0 < seen.numel < heads * H * W * keys / 7  # chunks of 512 queries


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": "0000"}, "terms='0000' is not allowed; give four digits of 0 and 1, at least one 1"),
        ({"terms": "111"}, "terms='111' is not allowed"),
        ({"terms": 1111}, "terms=1111 is not allowed"),
        ({"heads": 0}, "heads=0 is not allowed; give an int of at least 1"),
        ({"heads": 33}, "heads=33 leaves no channel for a head at channels=32; use at most 32"),
        ({"kv_stride": 0}, "kv_stride=0 is not allowed"),
        ({"position_channels": 6}, "position_channels=6 is no multiple of 4"),
        ({"position_channels": 8, "terms": "1010"}, "position_channels=8 does not go with terms='1010'"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        gcnet.create_block("ga", 32, **options)
