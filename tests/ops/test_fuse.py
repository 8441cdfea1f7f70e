"""The epilogue op against its reference, in values, gradients, layouts, dtypes and errors."""

import itertools
import os

import pytest
import torch
from torch import Tensor

from gcnet import ops
from gcnet.ops.fusion import fuse_reference, kernels
from gcnet.ops.triton_runtime import HAS_TRITON

SHAPES = [(2, 5, 6, 7), (1, 3, 1, 1), (3, 4, 13), (2, 3, 2, 3, 5), (0, 4, 3, 3)]
CASES = list(itertools.product([False, True], repeat=4))  # scale, shift, residual, relu
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
needs_triton = pytest.mark.skipif(
    not HAS_TRITON or (DEVICE == "cuda" and not torch.cuda.is_available()), reason="no Triton, or no GPU to run it"
)


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


def on_device(value):
    return value.to(DEVICE) if isinstance(value, Tensor) else value


@needs_triton
@pytest.mark.parametrize("case", CASES[1:])
@pytest.mark.parametrize(("shape", "last"), [((2, 5, 6, 7), False), ((2, 19, 3, 61), True), ((1, 3, 1, 1), False)])
def test_kernel_values_and_gradients_equal_the_reference(shape, last, case):
    x, options = inputs(shape, case, torch.float32)
    x = x.to(memory_format=torch.channels_last) if last else x
    x, options = on_device(x), {name: on_device(value) for name, value in options.items()}
    leaves = [t.requires_grad_() for t in (x, *options.values()) if isinstance(t, Tensor)]
    out, expected = kernels.fuse_op(x, **options), fuse_reference(x, **options)
    assert relative(out, expected) <= 1e-6
    assert out.stride() == x.stride()
    cotangent = torch.randn_like(expected)
    grads = torch.autograd.grad(out, leaves, cotangent)
    reference = torch.autograd.grad(expected, leaves, cotangent)
    for a, b in zip(grads, reference, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) <= 1e-5


@needs_triton
@pytest.mark.parametrize("frozen", range(4))
def test_kernel_gradients_when_one_input_needs_none(frozen):
    x, options = inputs((2, 3, 4, 5), (True, True, True, True), torch.float32)
    tensors = [on_device(t) for t in (x, *options.values()) if isinstance(t, Tensor)]
    leaves = [t.requires_grad_() for i, t in enumerate(tensors) if i != frozen]
    expected = fuse_reference(tensors[0], **dict(zip(options, tensors[1:], strict=False)), relu=True)
    cotangent = torch.randn_like(expected)
    grads = torch.autograd.grad(kernels.fuse_op(*tensors, True), leaves, cotangent)
    reference = torch.autograd.grad(expected, leaves, cotangent)
    assert all(relative(a, b) <= 1e-5 for a, b in zip(grads, reference, strict=True))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernel_in_half_precision_rounds_once(dtype):
    x, options = inputs((2, 5, 7, 11), (True, True, True, True), dtype)
    exact = by_numpy(x, **options)
    out = kernels.fuse_op(on_device(x), **{name: on_device(value) for name, value in options.items()})
    assert out.dtype == dtype
    assert relative(out.cpu(), exact) <= torch.finfo(dtype).eps / 2


@needs_triton
def test_kernel_keeps_nan_and_takes_other_layouts_of_the_residual_and_empty_batches():
    x, residual = torch.randn(2, 3, 4, 5, device=DEVICE), torch.randn(2, 3, 4, 5, device=DEVICE)
    x[0, 0, 0, 0] = torch.nan
    out = kernels.fuse_op(x, None, None, residual.to(memory_format=torch.channels_last), True)
    assert torch.allclose(out, (x + residual).relu(), equal_nan=True)
    gaps = torch.randn(4, 6, 4, 10, device=DEVICE)[::2, ::2, :, ::2]
    assert torch.equal(kernels.fuse_op(gaps, None, None, None, True), gaps.relu())
    assert kernels.fuse_op(x[:0], None, None, None, True).shape == (0, 3, 4, 5)


@needs_triton
def test_kernel_passes_opcheck():
    x, options = inputs((2, 3, 4, 5), (True, True, True, True), torch.float32)
    tensors = [on_device(t).requires_grad_() for t in (x, *options.values()) if isinstance(t, Tensor)]
    torch.library.opcheck(kernels.fuse_op, (*tensors, True))
    x, scale, _, out = (t.detach() for t in tensors)
    torch.library.opcheck(kernels.fuse_backward_op, (out, x, scale, out, True, True))


def test_ordinary_calls_on_the_cpu_never_reach_the_interpreter():
    assert not kernels.available(torch.zeros(1, 3, 4, 4))
