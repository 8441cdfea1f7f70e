"""The Triton programs of attention pooling in the interpreter: values, gradients, layouts, masks, registration."""

import os

import pytest
import torch
from torch import Tensor

from gcnet.blocks import ContextBlock
from gcnet.ops.attention_pooling import attention_pool_reference, kernels
from gcnet.ops.triton_runtime import HAS_TRITON, split

pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed"),
    pytest.mark.skipif(
        os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available(), reason="no GPU, no interpreter"
    ),
]
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
# Prime and odd sizes, one position, one channel, more channels than the widest tile of one program is wide.
SHAPES = [(2, 5, 6, 7), (1, 3, 1, 1), (3, 4, 131), (2, 3, 2, 3, 5), (1, 1, 31, 1), (2, 80, 17, 13), (0, 4, 3, 3)]


@pytest.fixture(autouse=True)
def _unwritten_numbers_are_nan():
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, last: bool = False) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape, device=DEVICE).to(dtype)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    return x.requires_grad_(), torch.randn(shape[1], device=DEVICE).to(dtype).requires_grad_()


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def gradients(pool, x: Tensor, weight: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    context = pool(x, weight)
    return (context, *torch.autograd.grad(context, (x, weight), cotangent.to(context.dtype)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_the_reference(shape, last):
    x, weight = inputs(shape, last=last)
    cotangent = torch.randn(shape[:2], dtype=torch.float64, device=DEVICE)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    ours = gradients(kernels.attention_pool_kernels, x, weight, cotangent)
    exact = gradients(attention_pool_reference, *wide, cotangent)
    assert ours[1].stride() == x.stride()
    for a, b in zip(ours, exact, strict=True):
        assert a.shape == b.shape
        floor = 1e-6 if x.shape[2:].numel() == 1 else 0.0  # with one position the weight's gradient is zero
        assert float((a.detach() - b.detach()).norm()) <= 1e-5 * float(b.detach().norm()) + floor


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_the_reference(dtype, last):
    x, weight = inputs((2, 24, 13, 11), dtype, last)
    cotangent = torch.randn(2, 24, dtype=dtype, device=DEVICE).double()
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    ours = gradients(kernels.attention_pool_kernels, x, weight, cotangent)
    plain = gradients(attention_pool_reference, x, weight, cotangent)
    exact = gradients(attention_pool_reference, *wide, cotangent)
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert a.dtype == dtype
        assert relative(a, c) <= 2 * relative(b, c) + torch.finfo(dtype).eps


@pytest.mark.parametrize("tile", [kernels.Tile(4, 4, 1, 1), kernels.Tile(16, 4, 2, 1), kernels.Tile(128, 4, 1, 1)])
def test_every_tile_gives_the_same(tile, monkeypatch):
    monkeypatch.setattr(kernels, "forward_tile", lambda *of: tile)
    monkeypatch.setattr(kernels, "backward_tile", lambda *of: tile)
    x, weight = inputs((2, 20, 9, 13))
    grad = torch.randn(2, 20, device=DEVICE)
    context, wide, logsumexp = kernels.attention_pool_op(x.detach(), weight.detach())
    assert relative(context, attention_pool_reference(x, weight)) <= 1e-6
    logits = torch.einsum("bcp,c->bp", x.flatten(2), weight)
    assert relative(logsumexp, logits.logsumexp(1)) <= 1e-6
    grad_x, grad_weight = kernels.attention_pool_backward_op(x.detach(), weight.detach(), logsumexp, wide, grad, None)
    expected = torch.autograd.grad(attention_pool_reference(x, weight), (x, weight), grad)
    assert relative(grad_x, expected[0]) <= 1e-5
    assert relative(grad_weight, expected[1]) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_pick_the_largest(dtype):
    x = torch.zeros(1, 2, 30, 50, dtype=dtype, device=DEVICE)  # several tiles: the largest logit comes late
    x[0, 0, 10, 20], x[0, 0, 25, 20] = -1e2, 1e2
    x[0, 1, 25, 20] = 3.0
    weight = torch.tensor([1e2, 0.0], dtype=dtype, device=DEVICE)  # logits of +-1e4
    context, _, logsumexp = kernels.attention_pool_op(x, weight)
    assert torch.equal(context.cpu(), torch.tensor([[100.0, 3.0]], dtype=dtype))
    assert logsumexp.item() == 1e4


def test_all_logits_far_below_zero_are_no_zero_division():
    x, weight = torch.full((1, 1, 40, 40), -1e4, device=DEVICE), torch.ones(1, device=DEVICE)
    assert torch.equal(kernels.attention_pool_op(x, weight)[0].cpu(), torch.tensor([[-1e4]]))


def test_slices_with_gaps_and_mixed_dtypes_are_taken():
    wide = torch.randn(4, 10, 6, 14, device=DEVICE)
    x, weight = wide.half()[::2, ::2, :, ::2], torch.randn(10, device=DEVICE)[::2]
    assert not x.is_contiguous()
    assert relative(kernels.attention_pool_op(x, weight)[0], attention_pool_reference(x.double(), weight)) <= 1e-3


@pytest.mark.parametrize("residual_last", [False, True])
def test_the_gradient_of_the_residual_is_added_in_the_same_pass(residual_last):
    x, weight = inputs((2, 6, 5, 7))
    t = torch.randn(2, 6, device=DEVICE, requires_grad=True)
    cotangent = torch.randn(2, 6, 5, 7, device=DEVICE)
    if residual_last:
        cotangent = cotangent.to(memory_format=torch.channels_last)

    def block(skip: Tensor, context: Tensor) -> Tensor:
        return skip + (context * t)[:, :, None, None]

    ours = torch.autograd.grad(block(*kernels.attention_pool_and_skip(x, weight)), (x, weight, t), cotangent)
    expected = torch.autograd.grad(block(x, attention_pool_reference(x, weight)), (x, weight, t), cotangent)
    for a, b in zip(ours, expected, strict=True):
        assert relative(a, b) <= 1e-5


@pytest.mark.parametrize("used", [0, 1])
def test_either_result_of_pool_and_skip_may_stay_unused(used):
    x, weight = inputs((2, 6, 5, 7))
    expected = (x, attention_pool_reference(x, weight))[used]
    ours = kernels.attention_pool_and_skip(x, weight)[used]
    cotangent = torch.randn_like(expected)
    a, b = (torch.autograd.grad(y, x, cotangent)[0] for y in (ours, expected))
    assert relative(a, b) <= 1e-5


@pytest.mark.parametrize("last", [False, True])
def test_opcheck(last):
    x, weight = inputs((2, 6, 5, 7), last=last)
    torch.library.opcheck(kernels.attention_pool_op, (x, weight))
    context, wide, logsumexp = (t.detach() for t in kernels.attention_pool_op(x, weight))
    x, weight = x.detach(), weight.detach()
    for residual in (None, torch.randn_like(x)):
        arguments = (x, weight, logsumexp, wide, context, residual)
        torch.library.opcheck(kernels.attention_pool_backward_op, arguments)


def test_compiles_forward_and_backward():
    x, weight = inputs((2, 6, 5, 7))

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return kernels.attention_pool_kernels(x * 2, weight).square().sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    ours, expected = (torch.autograd.grad(f(x, weight), (x, weight)) for f in (compiled, run))
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
def test_a_cuda_graph_of_forward_and_backward_replays_on_new_inputs():
    x, weight = inputs((2, 64, 25, 21))
    kernels.attention_pool_kernels(x, weight).sum().backward()  # compiles outside of the capture
    x.grad = weight.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        context = kernels.attention_pool_kernels(x, weight)
        grads = torch.autograd.grad(context.square().sum(), (x, weight))
    with torch.no_grad():
        x.normal_()
    graph.replay()
    expected = attention_pool_reference(x, weight)
    assert relative(context, expected) <= 1e-5
    for a, b in zip(grads, torch.autograd.grad(expected.square().sum(), (x, weight)), strict=True):
        assert relative(a, b) <= 1e-5


def test_what_the_kernels_do_not_take_is_named():
    weight = torch.zeros(3)
    with pytest.raises(ValueError, match=r"x has dtype torch.float64; the Triton ops take float32"):
        kernels.attention_pool_op(torch.zeros(1, 3, 4, 4).double(), weight)


def test_outside_the_interpreter_a_cpu_tensor_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="x is on device cpu; the Triton ops run on CUDA"):
        kernels.attention_pool_op(torch.zeros(1, 3, 4, 4), torch.zeros(3))


def test_ordinary_calls_on_the_cpu_never_reach_the_interpreter():
    assert not kernels.available(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("images", "tiles", "slots"), [(1, 1, 132), (32, 132, 132), (1, 4096, 264), (300, 7, 132)])
def test_splits_cover_all_tiles_and_none_is_empty(images, tiles, slots):
    steps, splits = split(images, tiles, slots)
    assert (splits - 1) * steps < tiles <= splits * steps


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("channels", [1, 24, 64, 256, 512, 1000, 1024, 2048, 4096])
def test_tiles_fit_into_shared_memory_and_registers(channels, itemsize, last):
    tiles = (kernels.forward_tile(channels, itemsize, last), 1), (kernels.backward_tile(channels, itemsize), 2)
    for (block_p, warps, stages, per_processor), maps in tiles:
        numbers = 2 ** (channels - 1).bit_length() * block_p
        assert numbers // (32 * warps) <= 64  # per thread
        assert numbers * itemsize * (stages - 1) * maps * per_processor <= 227 * 1024


@pytest.mark.parametrize("options", [{"fusion": "add"}, {"fusion": "both"}])
def test_a_block_where_the_kernels_serve_equals_the_block_where_they_do_not(options, monkeypatch):
    block = ContextBlock(8, reduction=2, **options).to(DEVICE)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, 5, 3, device=DEVICE, requires_grad=True)
    monkeypatch.setattr(kernels, "available", lambda x: False)
    expected = block(x)
    monkeypatch.setattr(kernels, "available", lambda x: True)
    ours = block(x)
    wanted = [x, *block.parameters()]
    cotangent = torch.randn_like(expected)
    assert relative(ours, expected) <= 1e-5
    pairs = zip(
        torch.autograd.grad(ours, wanted, cotangent), torch.autograd.grad(expected, wanted, cotangent), strict=True
    )
    for a, b in pairs:
        assert float((a - b).norm()) <= 1e-5 * float(b.norm()) + 1e-7
