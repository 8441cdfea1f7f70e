"""The four non-local forms against loops over queries and keys in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from gcnet import ops
from gcnet.ops.nonlocal_attention import query_chunks, softmax, sorted_prefix

SIZES = [(2, 7, 5, 4, 3), (1, 1, 1, 4, 4), (2, 131, 67, 3, 5), (1, 64, 128, 2, 2), (1, 65, 129, 2, 6), (1, 3, 1, 2, 2)]


def by_loops(theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, scale: float, weight: Tensor | None) -> Tensor:
    """Equations 1 to 6 of the paper, pair by pair, in plain Python floats."""
    out = torch.zeros(*theta.shape[:2], g.shape[2], dtype=torch.float64)
    for b in range(theta.shape[0]):
        keys, values = phi[b].tolist(), g[b].double()
        for i, query in enumerate(theta[b].tolist()):
            if pairwise == "concatenation":
                assert weight is not None
                w = weight.tolist()
                f = [scale * max(0.0, sum(u * v for u, v in zip(w, query + key, strict=True))) for key in keys]
            else:
                f = [scale * sum(u * v for u, v in zip(query, key, strict=True)) for key in keys]
            if pairwise in ("gaussian", "embedded_gaussian"):
                f = [math.exp(value - max(f)) for value in f]
                norm = sum(f)
            else:
                norm = len(keys)
            out[b, i] = sum(weight_ij / norm * value for weight_ij, value in zip(f, values, strict=True))
    return out


def inputs(size: tuple[int, ...], pairwise: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    B, P, Q, D, V = size
    shapes = [(B, P, D), (B, Q, D), (B, Q, V)] + ([(2 * D,)] if pairwise == "concatenation" else [])
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def attend(pairwise: str, tensors: list[Tensor], scale: float = 1.0, function=ops.nonlocal_attend) -> Tensor:
    theta, phi, g, *weight = tensors
    return function(theta, phi, g, pairwise=pairwise, scale=scale, concat_weight=weight[0] if weight else None)


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


@pytest.mark.parametrize("function", [ops.nonlocal_attend, ops.nonlocal_attend_reference])
@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
@pytest.mark.parametrize("size", SIZES[:3] + SIZES[5:])
def test_equals_the_loop(function, pairwise, size):
    tensors = inputs(size, pairwise)
    theta, phi, g, *weight = (t.detach() for t in tensors)
    expected = by_loops(theta, phi, g, pairwise, 0.7, weight[0] if weight else None)
    assert relative(attend(pairwise, tensors, 0.7, function), expected) <= 1e-12


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_outputs_and_gradients_equal_the_reference(pairwise, size, dtype, tolerance):
    tensors = inputs(size, pairwise, dtype)
    wide = [t.detach().double().requires_grad_() for t in tensors]
    out = attend(pairwise, tensors, -0.6)
    expected = attend(pairwise, wide, -0.6, ops.nonlocal_attend_reference)
    cotangent = torch.randn_like(expected)
    assert relative(out, expected) <= tolerance
    grads = torch.autograd.grad(out, tensors, cotangent.to(dtype))
    for grad, reference in zip(grads, torch.autograd.grad(expected, wide, cotangent), strict=True):
        if float(reference.norm()) > 1e-9:
            assert relative(grad, reference) <= tolerance
        else:
            assert float(grad.abs().max()) <= tolerance  # one key: the softmax passes no gradient


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
def test_gradcheck(pairwise):
    tensors = inputs((2, 4, 3, 3, 2), pairwise)
    assert torch.autograd.gradcheck(lambda *t: attend(pairwise, list(t), 0.7), tensors)


@pytest.mark.parametrize("pairwise", ["dot_product", "concatenation"])
def test_second_derivatives(pairwise):
    tensors = inputs((1, 4, 3, 3, 2), pairwise)
    assert torch.autograd.gradgradcheck(lambda *t: attend(pairwise, list(t), 0.7), tensors)


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
def test_an_empty_batch_passes(pairwise):
    tensors = inputs((0, 6, 6, 4, 4), pairwise)
    out = attend(pairwise, tensors)
    assert out.shape == (0, 6, 4)
    out.sum().backward()


class _Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor made inside holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.untyped_storage().nbytes() // value.element_size())
        return out


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
@pytest.mark.parametrize(("D", "V"), [(8, 8), (16, 8), (8, 16)])
def test_no_p_by_p_matrix_in_forward_or_backward(pairwise, D, V):
    P = 4 * query_chunks.CHUNK
    tensors = inputs((1, P, P, D, V), pairwise, torch.float32)
    with _Largest() as largest:
        attend(pairwise, tensors).sum().backward()
    assert largest.numel <= P * P / 4  # for the chunks P x CHUNK, for the others less
    with _Largest() as largest:
        attend(pairwise, [t.detach() for t in tensors], function=ops.nonlocal_attend_reference)
    assert largest.numel >= P * P  # the mode does see it where it exists


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_the_reference(pairwise, dtype):
    tensors = [t.detach().to(dtype) for t in inputs((2, 70, 90, 8, 8), pairwise, torch.float32)]
    exact = attend(pairwise, [t.double() for t in tensors], 0.3, ops.nonlocal_attend_reference)
    fast, plain = attend(pairwise, tensors, 0.3), attend(pairwise, tensors, 0.3, ops.nonlocal_attend_reference)
    assert fast.dtype == dtype
    assert relative(fast, exact) <= 2 * relative(plain, exact) + torch.finfo(dtype).eps
    if "gaussian" not in pairwise:  # only the result is rounded; the fused softmax kernels round the weights too
        assert relative(fast, exact) <= torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("pairwise", ["dot_product", "concatenation"])
def test_autocast_does_not_touch_the_precision_of_the_sums(pairwise):
    tensors = [t.detach() for t in inputs((1, 300, 300, 8, 8), pairwise, torch.float32)]
    exact = attend(pairwise, [t.double() for t in tensors], 1.0, ops.nonlocal_attend_reference)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert relative(attend(pairwise, tensors), exact) <= 1e-5


@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian"])
def test_extreme_logits_stay_finite(pairwise):
    theta = torch.tensor([[[100.0], [-100.0]]])
    phi = torch.tensor([[[100.0], [-100.0]]])
    g = torch.tensor([[[1.0], [2.0]]])
    assert torch.equal(ops.nonlocal_attend(theta, phi, g, pairwise=pairwise), torch.tensor([[[1.0], [2.0]]]))


@pytest.mark.parametrize("chunk", [1, 4, 131, 500])
def test_chunks_of_queries_equal_the_reference_whatever_their_size(chunk, monkeypatch):
    monkeypatch.setattr(query_chunks, "CHUNK", chunk)
    tensors = inputs((2, 131, 67, 5, 3), "gaussian")
    assert softmax.route(*tensors) == "chunks"
    out = attend("gaussian", tensors, -0.6)
    expected = attend("gaussian", tensors, -0.6, ops.nonlocal_attend_reference)
    cotangent = torch.randn_like(expected)
    assert relative(out, expected) <= 1e-12
    grads = torch.autograd.grad(out, tensors, cotangent)
    for grad, reference in zip(grads, torch.autograd.grad(expected, tensors, cotangent), strict=True):
        assert relative(grad, reference) <= 1e-12


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_chunks_give_only_the_gradients_that_are_asked_for(needed):
    tensors = [t.detach().requires_grad_(i == needed) for i, t in enumerate(inputs((1, 7, 5, 4, 3), "gaussian"))]
    all_of_them = [t.detach().requires_grad_() for t in tensors]
    attend("gaussian", tensors).square().sum().backward()
    attend("gaussian", all_of_them).square().sum().backward()
    assert [t.grad is not None for t in tensors] == [i == needed for i in range(3)]
    assert torch.equal(tensors[needed].grad, all_of_them[needed].grad)


def test_chunks_keep_their_precision_under_autocast():
    theta, phi, g = (t.detach() for t in inputs((1, 40, 30, 6, 4), "gaussian", torch.float32))
    expected = ops.nonlocal_attend_reference(theta, phi, g, pairwise="gaussian")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = query_chunks.SoftmaxInChunks.apply(theta, phi, g, 1.0)
    assert relative(out, expected) <= 1e-6


def test_the_cpu_route_follows_the_head_sizes_and_the_dtype():
    theta, phi, g = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8), torch.zeros(1, 6, 4)
    assert softmax.route(theta, phi, g) == "chunks"
    assert softmax.route(theta, phi, theta) == "fused"
    assert softmax.route(theta.double(), phi.double(), g.double()) == "chunks"
    assert softmax.route(theta.half(), phi.half(), g.half()) == "fused"
    assert softmax.route(theta.to("meta"), phi.to("meta"), g.to("meta")) == "chunks"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert softmax.route(theta, phi, g) == "fused"


@pytest.mark.parametrize(
    ("dtype", "D", "V", "takes", "expected"),
    [
        (torch.float32, 256, 128, True, "fused"),
        (torch.bfloat16, 512, 512, True, "efficient"),
        (torch.float16, 1024, 512, True, "efficient"),
        (torch.float32, 128, 257, True, "efficient"),
        (torch.float32, 512, 512, False, "chunks"),
        (torch.float64, 64, 64, False, "chunks"),
    ],
)
def test_the_cuda_route_never_reaches_the_math_kernel(dtype, D, V, takes, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(softmax, "can_use_efficient_attention", lambda params: asked.append(params) or takes)
    with FakeTensorMode():  # tensors of a GPU that need none
        theta, phi, g = (torch.empty(2, 60, size, dtype=dtype, device="cuda") for size in (D, D, V))
        assert softmax.route(theta, phi, g) == expected
    for params in asked:
        assert params.query.shape == params.key.shape == (2, 1, 60, D)
        assert params.value.shape == (2, 1, 60, -(-V // 8) * 8)
        assert params.query.stride(3) == 1
    assert bool(asked) == (expected != "fused")


@pytest.mark.parametrize(("D", "V"), [(8, 8), (13, 8), (8, 13), (13, 5)])
def test_the_efficient_route_allows_that_kernel_alone_and_pads_to_its_alignment(D, V, monkeypatch):
    allowed, sizes = [], []
    real = torch.nn.functional.scaled_dot_product_attention

    def kernels(backends):
        allowed.append(backends)
        return sdpa_kernel([SDPBackend.MATH])  # this machine's stand-in

    def attention(query, key, value, **options):
        sizes.append((query.shape[3], key.shape[3], value.shape[3]))
        return real(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(softmax, "route", lambda *tensors: "efficient")
    monkeypatch.setattr(softmax, "sdpa_kernel", kernels)
    tensors = [t.detach() for t in inputs((2, 9, 7, D, V), "gaussian")]
    out = attend("gaussian", tensors, 0.7)
    assert relative(out, attend("gaussian", tensors, 0.7, ops.nonlocal_attend_reference)) <= 1e-12
    assert allowed == [[SDPBackend.EFFICIENT_ATTENTION]]
    assert sizes == [(softmax.padded(D), softmax.padded(D), softmax.padded(V))]
    assert all(size % 8 == 0 for size in sizes[0])


def test_compiled_and_exported_graphs_hold_the_fused_call():
    theta, phi, g = (t.detach() for t in inputs((1, 9, 9, 6, 4), "gaussian", torch.float32))

    class Attend(torch.nn.Module):
        def forward(self, theta, phi, g):
            return ops.nonlocal_attend(theta, phi, g, pairwise="gaussian")

    program = torch.export.export(Attend(), (theta, phi, g))
    assert "scaled_dot_product_attention" in str(program.graph)
    assert relative(program.module()(theta, phi, g), Attend()(theta, phi, g)) <= 1e-6


def test_concatenation_keeps_its_digits_where_plain_float32_prefix_sums_lose_them():
    a = torch.linspace(-10000.5, -9999.5, 500)[None, :, None]
    b = torch.linspace(9999.0, 10001.0, 4000)[None, :, None]
    g = torch.randn(1, 4000, 3)
    weight = torch.ones(2)
    exact = ops.nonlocal_attend_reference(
        a.double(), b.double(), g.double(), pairwise="concatenation", concat_weight=weight.double()
    )
    fast = ops.nonlocal_attend(a, b, g, pairwise="concatenation", concat_weight=weight)
    assert relative(fast, exact) <= 1e-5
    falling, order = b[0, :, 0].sort(descending=True)  # the textbook form, for contrast
    active = (falling[None] > -a[0]).sum(1) - 1
    plain = a[0] * g[0, order].cumsum(0)[active] + (falling[:, None] * g[0, order]).cumsum(0)[active]
    assert relative(plain / 4000, exact[0]) >= 1e-4


def test_concatenation_with_ties_gaps_and_no_active_key():
    a = torch.tensor([[-3.0, -1.0, 0.0, 0.5, 2.0, -1e6]])
    b = torch.tensor([[1.0] * 70 + [-0.5] * 60 + [-1e5] * 3])
    g = torch.randn(1, 133, 4)
    out = sorted_prefix.ReluSum.apply(a, b, g, 1.0)
    expected = (a[:, :, None] + b[:, None]).relu().double() @ g.double()
    assert relative(out, expected) <= 1e-6
    assert torch.equal(out[0, 0], torch.zeros(4))
    assert torch.equal(out[0, 5], torch.zeros(4))


def test_compensated_running_sum_is_as_good_as_float64():
    x = torch.randn(2, 1000, 3) * torch.logspace(-3, 3, 1000)[None, :, None]
    exact = x.double().cumsum(1)
    assert relative(sorted_prefix.compensated_running_sum(x), exact) <= 1e-7
    assert torch.equal(sorted_prefix.running_sum(x), exact.float())
    big = torch.tensor([1e8, 1.0, -1e8, 1.0])[None, :, None]
    assert sorted_prefix.compensated_running_sum(big)[0, :, 0].tolist() == [1e8, 1e8, 1.0, 2.0]


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
def test_compiles(pairwise):
    tensors = inputs((2, 70, 70, 4, 4), pairwise, torch.float32)
    compiled = torch.compile(lambda *t: attend(pairwise, list(t)), fullgraph=True, backend="eager")
    assert relative(compiled(*tensors), attend(pairwise, tensors)) <= 1e-6


@pytest.mark.parametrize("pairwise", ops.PAIRWISE)
def test_the_matrix_for_looking_at_agrees_with_the_fast_form(pairwise):
    theta, phi, g, *weight = inputs((2, 9, 11, 4, 3), pairwise)
    matrix = ops.pairwise_weights(theta, phi, pairwise=pairwise, scale=0.5, concat_weight=weight[0] if weight else None)
    assert relative(matrix @ g, attend(pairwise, [theta, phi, g, *weight], 0.5)) <= 1e-12
    if "gaussian" in pairwise:
        assert torch.allclose(matrix.sum(2), torch.ones(2, 9, dtype=torch.float64))


def test_misfits_are_named():
    x = torch.zeros(2, 5, 4)

    def call(theta=x, phi=x, g=x, pairwise="dot_product", **options):
        return ops.nonlocal_attend(theta, phi, g, pairwise=pairwise, **options)

    with pytest.raises(ValueError, match=r"pairwise='cosine' is unknown; use one of gaussian, embedded_gaussian"):
        call(pairwise="cosine")
    with pytest.raises(ValueError, match=r"theta, phi and g must be \(B, P, D\)"):
        call(theta=x[0])
    with pytest.raises(ValueError, match=r"phi has shape \(2, 5, 3\); expected \(2, Q, 4\)"):
        call(phi=x[..., :3])
    with pytest.raises(ValueError, match=r"g has shape \(2, 4, 4\); expected \(2, 5\) first"):
        call(g=x[:, :4])
    with pytest.raises(ValueError, match="holds no key"):
        call(phi=x[:, :0], g=x[:, :0])
    with pytest.raises(ValueError, match=r"concat_weight has shape None; pairwise='concatenation' needs \(8,\)"):
        call(pairwise="concatenation")
    with pytest.raises(ValueError, match="concat_weight is given, but pairwise='dot_product' has none"):
        call(concat_weight=torch.zeros(8))
