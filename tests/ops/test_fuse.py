"""The epilogue op against its reference, in values, gradients, layouts, dtypes and errors."""

import itertools

import pytest
import torch
from torch import Tensor

from gcnet import ops
from gcnet.ops.fuse import fuse_reference

SHAPES = [(2, 5, 6, 7), (1, 3, 1, 1), (3, 4, 13), (2, 3, 2, 3, 5), (0, 4, 3, 3)]
CASES = list(itertools.product([False, True], repeat=4))  # scale, shift, residual, relu
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def inputs(shape: tuple[int, ...], case: tuple[bool, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, dict]:
    scale, shift, residual, relu = case
    x = torch.randn(shape, dtype=dtype)
    options = {
        "scale": torch.randn(shape[:2], dtype=dtype) if scale else None,
        "shift": torch.randn(shape[:2], dtype=dtype) if shift else None,
        "residual": torch.randn(shape, dtype=dtype) if residual else None,
        "relu": relu,
    }
    return x, options


def by_numpy(x: Tensor, scale, shift, residual, relu) -> Tensor:
    """Channel by channel in float64."""
    out = x.double().clone()
    for b, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        if scale is not None:
            out[b, c] *= float(scale[b, c])
        if shift is not None:
            out[b, c] += float(shift[b, c])
        if residual is not None:
            out[b, c] += residual[b, c].double()
    return torch.where(out > 0, out, 0.0) if relu else out


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize("fuse", [ops.fuse, fuse_reference])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_combination_equals_the_loop_and_leaves_its_inputs_alone(fuse, shape):
    for case in CASES:
        x, options = inputs(shape, case)
        before = [t.clone() for t in (x, *options.values()) if isinstance(t, Tensor)]
        assert relative(fuse(x, **options), by_numpy(x, **options)) <= 1e-14, case
        after = [t for t in (x, *options.values()) if isinstance(t, Tensor)]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), case


@pytest.mark.parametrize("case", CASES[1:])
def test_gradients_equal_those_of_the_reference(case):
    x, options = inputs((2, 3, 4, 5), case)
    leaves = [t.requires_grad_() for t in (x, *options.values()) if isinstance(t, Tensor)]
    cotangent = torch.randn_like(x)
    grads = torch.autograd.grad(ops.fuse(x, **options), leaves, cotangent)
    expected = torch.autograd.grad(fuse_reference(x, **options), leaves, cotangent)
    assert all(relative(a, b) <= 1e-12 for a, b in zip(grads, expected, strict=True))


def test_gradcheck_and_second_derivatives():
    x, options = inputs((2, 3, 2, 3), (True, True, True, False))
    leaves = [t.requires_grad_() for t in (x, options["scale"], options["shift"], options["residual"])]

    def run(x, scale, shift, residual):
        return ops.fuse(x, scale=scale, shift=shift, residual=residual)

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize("case", [(True, True, True, True), (False, True, False, True), (False, False, True, False)])
def test_memory_formats_are_kept(case):
    x, options = inputs((2, 5, 6, 7), case)
    expected = ops.fuse(x, **options)
    out = ops.fuse(x.to(memory_format=torch.channels_last), **options)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert relative(out, expected) <= 1e-14


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_the_reference(dtype):
    x, options = inputs((2, 16, 20, 20), (True, True, True, True), dtype)
    exact = by_numpy(x, **options)
    out = ops.fuse(x, **options)
    assert out.dtype == dtype
    assert relative(out, exact) <= 2 * relative(fuse_reference(x, **options), exact) + torch.finfo(dtype).eps


def test_float32_vectors_do_not_widen_a_half_precision_map():
    x, options = inputs((2, 3, 4, 4), (True, True, True, True), torch.float32)
    out = ops.fuse(x.bfloat16(), **options)
    assert out.dtype == torch.bfloat16
    assert relative(out, by_numpy(x, **options)) <= 1e-2


def test_compiles():
    x, options = inputs((2, 5, 6, 7), (True, True, True, True), torch.float32)
    compiled = torch.compile(ops.fuse, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, **options), ops.fuse(x, **options))


def test_misfits_are_named():
    x = torch.zeros(2, 3, 4, 4)
    with pytest.raises(
        ValueError, match=r"scale has shape \(3,\); expected \(2, 3\), one number per image and channel"
    ):
        ops.fuse(x, scale=torch.zeros(3))
    with pytest.raises(ValueError, match=r"shift has shape \(2, 3, 1, 1\); expected \(2, 3\)"):
        ops.fuse(x, shift=torch.zeros(2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"residual has shape \(2, 3, 4, 1\); expected \(2, 3, 4, 4\), the shape of x"):
        ops.fuse(x, residual=torch.zeros(2, 3, 4, 1))
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\); expected \(B, C, W\)"):
        ops.fuse(torch.zeros(2, 3))
