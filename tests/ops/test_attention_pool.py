"""Attention and average pooling against loops over positions in float64."""

import pytest
import torch
from torch import Tensor

from gcnet import ops
from gcnet.ops.attention_pooling import attention_pool_reference

SHAPES = [(2, 5, 6, 7), (1, 3, 1, 1), (3, 4, 13), (2, 3, 2, 3, 5), (1, 7, 31, 1), (0, 4, 3, 3)]


def by_loops(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition, one image and one position at a time, in float64."""
    x, weight, bias = x.detach().double(), weight.detach().double(), bias.detach().double()
    out = x.new_zeros(x.shape[:2])
    for b in range(x.shape[0]):
        columns = list(x[b].flatten(1).unbind(1))
        logits = [float((weight * column).sum() + bias) for column in columns]
        top = max(logits)
        shares = [torch.tensor(value - top, dtype=torch.float64).exp() for value in logits]
        for share, column in zip(shares, columns, strict=True):
            out[b] += share / sum(shares) * column
    return out


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    tensors = torch.randn(shape, dtype=dtype), torch.randn(shape[1], dtype=dtype), torch.randn(1, dtype=dtype)
    return tuple(t.requires_grad_() for t in tensors)  # type: ignore[return-value]


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize("pool", [ops.attention_pool, attention_pool_reference])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_pool_equals_the_loop(pool, shape):
    x, weight, bias = inputs(shape)
    assert relative(pool(x, weight, bias), by_loops(x, weight, bias)) <= 1e-12


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_gradients_equal_those_of_the_reference(shape, dtype, tolerance):
    x, weight, bias = inputs(shape, dtype)
    wide = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    out, expected = ops.attention_pool(x, weight, bias), attention_pool_reference(*wide)
    cotangent = torch.randn_like(expected)
    grads = torch.autograd.grad(out, (x, weight, bias), cotangent.to(dtype))
    reference = torch.autograd.grad(expected, wide, cotangent)
    assert relative(out, expected) <= tolerance
    assert relative(grads[0], reference[0]) <= tolerance
    if x[0, 0].numel() > 1:
        assert relative(grads[1], reference[1]) <= tolerance
    assert float(grads[2]) == 0.0  # the bias cancels in the softmax: exactly zero, yet present (DDP)


def test_gradcheck_and_second_derivatives():
    x, weight, bias = inputs((2, 3, 2, 3))
    assert torch.autograd.gradcheck(ops.attention_pool, (x, weight, bias))
    assert torch.autograd.gradgradcheck(ops.attention_pool, (x, weight, bias))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats_give_the_same(memory_format):
    x, weight, bias = inputs((2, 5, 6, 7))
    assert (
        relative(
            ops.attention_pool(x.detach().to(memory_format=memory_format), weight, bias), by_loops(x, weight, bias)
        )
        <= 1e-12
    )


def test_slices_with_gaps_are_taken_as_they_are():
    wide = torch.randn(4, 10, 6, 14, dtype=torch.float64)
    x = wide[::2, ::2, :, ::2]
    weight, bias = torch.randn(5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert relative(ops.attention_pool(x, weight, bias), by_loops(x, weight, bias)) <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_the_reference(dtype):
    x, weight = torch.randn(2, 16, 20, 20).to(dtype), torch.randn(16).to(dtype)
    exact = by_loops(x, weight, torch.zeros(1))
    eps = torch.finfo(dtype).eps
    fast, plain = ops.attention_pool(x, weight), attention_pool_reference(x, weight)
    assert fast.dtype == dtype
    assert relative(fast, exact) <= 2 * relative(plain, exact) + eps
    assert relative(fast, exact) <= eps / 2  # only the result is rounded: everything before it is float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_pick_the_largest(dtype):
    x = torch.zeros(1, 2, 3, 5, dtype=dtype)
    x[0, 0, 1, 2], x[0, 0, 2, 2] = 1e2, -1e2
    x[0, 1, 1, 2] = 3.0
    context = ops.attention_pool(x, torch.tensor([1e2, 0.0], dtype=dtype))  # logits of +-1e4
    assert torch.equal(context, torch.tensor([[100.0, 3.0]], dtype=dtype))


def test_autocast_does_not_touch_the_precision():
    x, weight, bias = inputs((2, 16, 9, 9), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        context = ops.attention_pool(x, weight, bias)
    assert context.dtype == torch.float32
    assert relative(context, by_loops(x, weight, bias)) <= 1e-6


def test_permuting_positions_changes_nothing():
    x, weight, bias = inputs((2, 5, 17))
    assert relative(ops.attention_pool(x[:, :, torch.randperm(17)], weight, bias), by_loops(x, weight, bias)) <= 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_average_pool_is_the_mean(shape):
    x = torch.randn(shape, dtype=torch.float64)
    expected = torch.stack([image.flatten(1).mean(1) for image in x]) if shape[0] else x.new_zeros(0, shape[1])
    assert torch.allclose(ops.average_pool(x), expected, atol=1e-14)


def test_average_pool_sums_half_precision_wide():
    x = torch.full((1, 1, 300, 300), 1.001953125, dtype=torch.float16)
    assert ops.average_pool(x).item() == 1.001953125


def test_compiles():
    x, weight, bias = inputs((2, 5, 6, 7), torch.float32)
    compiled = torch.compile(ops.attention_pool, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, weight, bias), ops.attention_pool(x, weight, bias))


@pytest.mark.parametrize("pool", [lambda x: ops.attention_pool(x, torch.zeros(x.shape[1])), ops.average_pool])
@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((2, 3), r"x has shape \(2, 3\); expected \(B, C, W\) or \(B, C, H, W\)"),
        ((2, 3, 1, 1, 1, 1), "x has shape"),
        ((2, 3, 0, 4), "holds no position"),
    ],
)
def test_shapes_that_are_no_map_are_named(pool, shape, match):
    with pytest.raises(ValueError, match=match):
        pool(torch.zeros(shape))


def test_misfits_are_named():
    x = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"weight has shape \(4,\); expected \(3,\)"):
        ops.attention_pool(x, torch.zeros(4))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); expected a scalar"):
        ops.attention_pool(x, torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"x has dtype torch.int64; expected a floating-point"):
        ops.attention_pool(x.long(), torch.zeros(3))
