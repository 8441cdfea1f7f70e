"""The context path of a folded block against loops over images in float64."""

import math
import os

import pytest
import torch
from torch import Tensor

from gcnet import ops
from gcnet.ops.context_vectors import BACKENDS, Branch, choose, pooled_transform_reference, triton
from gcnet.ops.triton_runtime import HAS_TRITON

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
needs_triton = pytest.mark.skipif(
    not HAS_TRITON or (DEVICE == "cuda" and not torch.cuda.is_available()), reason="no Triton, or no GPU to run it"
)
SHAPES = [(2, 6, 5, 7), (1, 3, 1, 1), (3, 5, 13), (2, 4, 2, 3, 5), (0, 4, 3, 3)]
# pool, layers: "two" with norm, "plain" two without a norm or biases, "one" a linear transform
FORMS = [(pool, layers) for pool in ("attention", "average") for layers in ("two", "plain", "one")]
NAMES = ("h", "key", "reduce_weight", "reduce_bias", "norm_weight", "norm_bias", "expand_weight", "expand_bias")
ACTIVATIONS = {
    "relu": lambda v: max(v, 0.0),
    "silu": lambda v: v / (1 + math.exp(-v)),
    "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
    "hard_swish": lambda v: v * min(max(v + 3, 0.0), 6.0) / 6,
    None: lambda v: v,
}


def inputs(
    shape: tuple[int, ...], form: tuple[str, str], dtype: torch.dtype = torch.float64, hidden: int = 5, out: int = 9
) -> list[Tensor | None]:
    pool, layers = form
    K = shape[1]
    two, full = layers != "one", layers == "two"
    return [
        torch.randn(shape, dtype=dtype),
        torch.randn(K, dtype=dtype) if pool == "attention" else None,
        torch.randn(hidden, K, dtype=dtype) if two else None,
        torch.randn(hidden, dtype=dtype) if full else None,
        torch.rand(hidden, dtype=dtype) + 0.5 if full else None,
        torch.randn(hidden, dtype=dtype) if full else None,
        torch.randn(out, hidden if two else K, dtype=dtype) / 2,
        None if layers == "plain" else torch.randn(out, dtype=dtype),
    ]


def by_loops(tensors, activation="relu", eps=1e-5) -> Tensor:
    h, key, reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias = (
        None if t is None else t.detach().double() for t in tensors
    )
    rows = []
    for image in h:
        columns = image.flatten(1)
        alpha = torch.full((columns.shape[1],), 1 / columns.shape[1], dtype=torch.float64)
        if key is not None:
            logits = key @ columns
            alpha = (logits - logits.max()).exp()
            alpha = alpha / alpha.sum()
        v = columns @ alpha
        if reduce_weight is not None:
            v = reduce_weight @ v + (0 if reduce_bias is None else reduce_bias)
            if norm_weight is not None:
                variance = ((v - v.mean()) ** 2).mean()
                v = (v - v.mean()) / math.sqrt(float(variance) + eps) * norm_weight
                v = v + (0 if norm_bias is None else norm_bias)
            v = torch.tensor([ACTIVATIONS[activation](float(value)) for value in v], dtype=torch.float64)
        rows.append(expand_weight @ v + (0 if expand_bias is None else expand_bias))
    return torch.stack(rows) if rows else h.new_zeros(0, expand_weight.shape[0])


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@pytest.mark.parametrize("run", [ops.pooled_transform, pooled_transform_reference])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_the_loop(run, shape, form):
    tensors = inputs(shape, form)
    assert relative(run(*tensors), by_loops(tensors)) <= 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_eps(activation):
    tensors = inputs((2, 6, 4, 4), ("attention", "two"))
    out = ops.pooled_transform(*tensors, activation=activation, eps=0.1)
    assert relative(out, by_loops(tensors, activation, 0.1)) <= 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_those_of_the_reference(form):
    tensors = inputs((2, 6, 3, 4), form)
    leaves = [t.requires_grad_() for t in tensors if t is not None]
    out, expected = ops.pooled_transform(*tensors), pooled_transform_reference(*tensors)
    cotangent = torch.randn_like(out)
    grads = torch.autograd.grad(out, leaves, cotangent)
    reference = torch.autograd.grad(expected, leaves, cotangent)
    assert all(relative(a, b) <= 1e-10 for a, b in zip(grads, reference, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_the_reference(dtype):
    tensors = [None if t is None else t.to(dtype) for t in inputs((2, 16, 12, 12), ("attention", "two"))]
    exact = by_loops(tensors)
    out = ops.pooled_transform(*tensors)
    assert out.dtype == dtype
    reference = relative(pooled_transform_reference(*tensors), exact)
    assert relative(out, exact) <= 2 * reference + torch.finfo(dtype).eps


@pytest.mark.parametrize("form", FORMS)
def test_the_backends_of_a_call_agree(form):
    h, key, *weights = inputs((2, 6, 5, 7), form)
    branches = [Branch(tuple(weights)), Branch(tuple(weights), activation="silu")]
    with torch.no_grad():
        assert choose(h, key, branches) == "cpu"
        for ours, theirs in zip(
            BACKENDS["cpu"].vectors(h, key, branches), BACKENDS["general"].vectors(h, key, branches), strict=True
        ):
            assert relative(ours, theirs) <= 1e-12


def test_a_gradient_and_mixed_dtypes_take_the_general_path():
    h, key, *weights = inputs((2, 6, 5, 7), ("attention", "two"))
    assert choose(h, key, [Branch(tuple(weights))]) == "general"
    with torch.no_grad():
        assert choose(h.float(), key, [Branch(tuple(weights))]) == "general"
        assert ops.pooled_transform(h.float(), key, *weights).dtype == torch.float32


def test_channels_last_and_autocast_change_nothing():
    tensors = inputs((2, 6, 5, 7), ("attention", "two"), torch.float32)
    exact = by_loops(tensors)
    tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative(ops.pooled_transform(*tensors), exact) <= 1e-5


def test_compiles():
    tensors = inputs((2, 6, 5, 7), ("attention", "two"), torch.float32)
    compiled = torch.compile(ops.pooled_transform, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*tensors), ops.pooled_transform(*tensors))


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("h", torch.zeros(2, 6), r"h has shape \(2, 6\); expected \(B, C, W\)"),
        ("key", torch.zeros(5), r"key has shape \(5,\); expected \(6,\)"),
        ("reduce_weight", torch.zeros(5, 7), r"reduce_weight has shape \(5, 7\); expected \(5, 6\)"),
        ("reduce_bias", torch.zeros(6), r"reduce_bias has shape \(6,\); expected \(5,\)"),
        ("norm_weight", torch.zeros(6), r"norm_weight has shape \(6,\); expected \(5,\)"),
        ("norm_weight", None, "norm_bias is given, but norm_weight is None"),
        ("reduce_weight", None, "reduce_bias is given, but reduce_weight is None; leave both out"),
        ("expand_weight", torch.zeros(9, 6), r"expand_weight has shape \(9, 6\); expected \(9, 5\)"),
        ("expand_bias", torch.zeros(8), r"expand_bias has shape \(8,\); expected \(9,\)"),
    ],
)
def test_misfits_are_named(name, value, match):
    tensors = inputs((2, 6, 4, 4), ("attention", "two"), torch.float32)
    tensors[NAMES.index(name)] = value
    with pytest.raises(ValueError, match=match):
        ops.pooled_transform(*tensors)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation='tanh' is unknown; use one of relu, silu"):
        ops.pooled_transform(*inputs((2, 6, 4, 4), ("attention", "two")), activation="tanh")


def run_kernel(tensors, activation="relu", eps=1e-5) -> Tensor:
    h, key, *weights = (None if t is None else t.to(DEVICE) for t in tensors)
    return triton.pooled_transform_op(h, key, *weights, eps, activation).cpu()


@needs_triton
@pytest.mark.parametrize(("shape", "last"), [((2, 6, 5, 67), False), ((3, 37, 9, 13), True), ((0, 4, 3, 3), False)])
@pytest.mark.parametrize("form", FORMS)
def test_kernel_equals_the_loop_in_every_form(shape, last, form):
    tensors = inputs(shape, form, torch.float32, hidden=19, out=77)
    tensors[0] = tensors[0].to(memory_format=torch.channels_last) if last else tensors[0]
    assert relative(run_kernel(tensors), by_loops(tensors)) <= 1e-5


@needs_triton
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernel_activations_and_eps(activation):
    tensors = inputs((2, 6, 4, 4), ("attention", "two"), torch.float32)
    assert relative(run_kernel(tensors, activation, 0.1), by_loops(tensors, activation, 0.1)) <= 1e-5


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernel_in_half_precision_rounds_once(dtype):
    tensors = [None if t is None else t.to(dtype) for t in inputs((2, 16, 12, 12), ("attention", "two"))]
    out = run_kernel(tensors)
    assert out.dtype == dtype
    assert relative(out, by_loops(tensors)) <= torch.finfo(dtype).eps / 2


@needs_triton
def test_kernel_passes_opcheck():
    h, key, *weights = (
        t if t is None else t.to(DEVICE) for t in inputs((2, 6, 4, 4), ("attention", "two"), torch.float32)
    )
    torch.library.opcheck(triton.pooled_transform_op, (h, key, *weights, 1e-5, "relu"))


def test_ordinary_calls_on_the_cpu_never_reach_the_interpreter():
    h, key, *weights = inputs((1, 3, 4, 4), ("attention", "two"))
    assert not triton.serves(h, key, [Branch(tuple(weights))])
