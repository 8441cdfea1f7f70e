"""What every block promises, whatever it computes: start, gradients, copies, compilers, sizes, errors."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from gcnet.blocks import ContextBlock, GlobalContext, NonLocal, SimplifiedNonLocal, SqueezeExcitation
from gcnet.blocks.criss_cross import CrissCross
from gcnet.blocks.disentangled_nonlocal import DisentangledNonLocal
from gcnet.blocks.dual import DualAttention
from gcnet.blocks.from_timm import BilinearAttention, Cbam, EfficientChannelAttention
from gcnet.blocks.gather_excite import GatherExcite
from gcnet.blocks.generalized_attention import GeneralizedAttention

# name -> (class, options, sizes it must take)
SIZES = [(1, 1), (7, 5), (13, 1), (11, 13)]
OWN = {
    "gc": (GlobalContext, {"reduction": 4}, SIZES),
    "snl": (SimplifiedNonLocal, {}, SIZES),
    "se": (SqueezeExcitation, {"gate": "identity"}, SIZES),
    "nl": (NonLocal, {}, SIZES),
    "nl_concatenation": (NonLocal, {"pairwise": "concatenation"}, SIZES),
}
OWN |= {  # every axis of the paper's ablation
    f"context-{pool}-{transform}-{fusion}": (
        ContextBlock,
        {"pool": pool, "transform": transform, "fusion": fusion, "gate": "identity", "reduction": 4},
        SIZES,
    )
    for pool in ("attention", "average")
    for transform in ("bottleneck", "linear")
    for fusion in ("add", "scale", "both")
}
OWN["context-plain"] = (ContextBlock, {"norm": False, "activation": None, "bias": False, "hidden": 5}, SIZES)
OWN |= {
    f"nl-{pairwise}-{subsample}-{norm}": (
        NonLocal,
        {"pairwise": pairwise, "subsample": subsample, "norm": norm, "scale": 0.3},
        SIZES,
    )
    for pairwise in ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
    for subsample, norm in ((False, "batch"), ("after", None), ("before", None))
}
BLOCKS = OWN | {
    "cbam": (Cbam, {}, SIZES),
    "ge": (GatherExcite, {}, SIZES),
    "ge-mean": (GatherExcite, {"extent": 2, "learned": False}, SIZES),
    "ge-global": (GatherExcite, {"extent": 0, "learned": False, "reduction": 8}, SIZES),
    "ge-plus": (GatherExcite, {"extent": 4, "reduction": 8}, SIZES),
    "eca": (EfficientChannelAttention, {}, SIZES),
    "bat": (BilinearAttention, {}, [(7, 7), (14, 7), (7, 21)]),
    "criss_cross": (CrissCross, {}, SIZES),
    "dual": (DualAttention, {}, SIZES),
    "dnl": (DisentangledNonLocal, {}, SIZES),
    "dnl-norm": (DisentangledNonLocal, {"norm": "batch"}, SIZES),
    "ga": (GeneralizedAttention, {}, SIZES),
    "ga-0010": (GeneralizedAttention, {"terms": "0010"}, SIZES),
    "ga-1010": (GeneralizedAttention, {"terms": "1010"}, SIZES),
}
CHANNELS = 32
every_block = pytest.mark.parametrize("name", BLOCKS)


def build(name: str, **more) -> nn.Module:
    cls, options, _ = BLOCKS[name]
    return cls(CHANNELS, **options, **more)


def wake(block: nn.Module) -> nn.Module:
    """Randomise all that starts at zero: before that every mistake behind it is invisible."""
    for p in block.parameters():
        if not p.any():
            nn.init.constant_(p, 0.7) if p.numel() == 1 else nn.init.normal_(p, std=0.5)
    return block


def example(name: str, batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, CHANNELS, *BLOCKS[name][2][1], dtype=dtype)


@every_block
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_starts_as_the_identity_bit_for_bit(name, dtype, train):
    block, x = build(name, dtype=dtype).train(train), 10 * example(name, dtype=dtype)
    assert all(p.dtype == dtype for p in block.parameters())
    y = block(x)
    assert y.dtype == dtype
    assert torch.equal(y, x)


@every_block
def test_every_parameter_learns(name):
    block, x = build(name, dtype=torch.float64), example(name, dtype=torch.float64)
    seed = torch.randn_like(x)
    block(x).backward(seed)
    assert [n for n, p in block.named_parameters() if p.grad is None] == []
    wake(block).zero_grad()
    x.requires_grad_()
    block(x).backward(seed)
    scale = max(p.grad.abs().max() for p in block.parameters())
    dead = {n for n, p in block.named_parameters() if p.grad.abs().max() < 1e-12 * scale}
    # a key's bias shifts all logits of a query alike, which the softmax takes out again; a value's bias shifts all
    # positions alike, which a batch norm takes out again
    cancels = {"criss_cross": {"key.bias"}, "dual": {"key.bias"}, "dnl-norm": {"value.bias"}}.get(name, set())
    if name in OWN:
        cancels = {n for n, _ in block.named_parameters() if n == "key.bias"}
        if name == "nl" or "gaussian" in name:
            cancels |= {n for n, _ in block.named_parameters() if n == "phi.bias"}
            cancels |= {"g.bias"} if name.endswith("-batch") else set()
    assert dead == cancels
    assert not torch.allclose(x.grad, seed)


@every_block
def test_all_sizes_and_an_empty_batch(name):
    block = wake(build(name))
    for size in BLOCKS[name][2]:
        for batch in (0, 3):
            x = torch.randn(batch, CHANNELS, *size)
            y = block(x)
            assert y.shape == x.shape
            assert torch.isfinite(y).all()
            assert batch == 0 or not torch.allclose(y, x)


@every_block
def test_images_of_a_batch_do_not_mix_in_eval_mode(name):
    block, x = wake(build(name, dtype=torch.float64)).eval(), example(name, 3, torch.float64)
    torch.testing.assert_close(block(x), torch.cat([block(image[None]) for image in x]), rtol=1e-10, atol=1e-10)


@every_block
def test_copies_and_saved_blocks_answer_the_same(name):
    block, x = wake(build(name)).eval(), example(name)
    y = block(x)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), y)
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    fresh = build(name).eval()
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(x), y)


@pytest.mark.parametrize(
    "name",
    [n for n in BLOCKS if n not in ("ge-mean", "ge-plus") and not n.startswith(("context", "nl-"))],
)
def test_compile_and_export_give_the_same(name):
    block, x = wake(build(name)).eval(), example(name)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(block, backend="eager", fullgraph=True)(x), block(x))
    exported = torch.export.export(block, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    other = example(name, batch=5)
    torch.testing.assert_close(exported.module()(other), block(other))


@pytest.mark.parametrize(
    "name", ["cbam", "ge", "bat", "dual", "dnl-norm", "gc", "nl_concatenation"]
)  # batch norm, dropout, autocast switches
def test_training_compiles_and_exports_too(name):
    block, x = wake(build(name)), example(name)
    torch._dynamo.reset()
    torch.compile(block, backend="eager", fullgraph=True)(x).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    torch.export.export(block, (x,))


@every_block
def test_bfloat16_stays_near_float32(name):
    block, x = wake(build(name)).eval(), example(name)
    if name.startswith("dnl"):
        block.query.weight.data *= 0.1  # 1 / temperature = 20 would make the softmax a choice, and choices flip
    x = x.bfloat16().float()
    half = copy.deepcopy(block).bfloat16()
    change = block(x) - x
    error = (half(x.bfloat16()).float() - x - change).norm() / change.norm()
    assert error < 0.03


@every_block
def test_memory_format_and_dtype_are_kept(name):
    block, x = wake(build(name)).eval(), example(name)
    y = block(x)
    last = block(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block(x).dtype == torch.float32
        assert block(x.bfloat16()).dtype == torch.bfloat16


@every_block
def test_it_can_be_built_on_the_meta_device(name):
    assert all(p.is_meta for p in build(name, device="meta").parameters())


@every_block
def test_maps_that_do_not_fit_are_named(name):
    block = build(name)
    with pytest.raises(ValueError, match=r"x has shape \(2, 31, 7, 7\), so 31 channels; expected 32"):
        block(torch.zeros(2, 31, 7, 7))
    with pytest.raises(ValueError, match=r"x has shape \(2, 32\); expected .*\(B, C, H, W\)"):
        block(torch.zeros(2, 32))
    if name.startswith(("dual", "dnl")) or name in OWN:
        return
    with pytest.raises(ValueError, match=r"x has shape \(2, 32, 7, 7, 7\); expected \(B, C, H, W\)$"):
        block(torch.zeros(2, 32, 7, 7, 7))


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (GlobalContext, {"reduction": 33}, "reduction=33 leaves no hidden channel for channels=32; use at most 32"),
        (GlobalContext, {"reduction": 1.5}, "reduction=1.5 is not allowed; give a positive int"),
        (GlobalContext, {"hidden": 4, "transform": "linear"}, "hidden=4 does not go with transform='linear'"),
        (GlobalContext, {"hidden": 0}, "hidden=0 is not allowed; give a positive int, or None"),
        (GlobalContext, {"pool": "max"}, "pool='max' is unknown; use one of 'attention', 'average'"),
        (GlobalContext, {"fusion": "mul"}, "fusion='mul' is unknown; use one of 'add', 'scale', 'both'"),
        (GlobalContext, {"transform": "mlp"}, "transform='mlp' is unknown; use one of 'bottleneck', 'linear'"),
        (GlobalContext, {"activation": "tanh"}, "activation='tanh' is unknown; use one of 'relu', 'silu'"),
        (GlobalContext, {"gate": "tanh"}, "gate='tanh' is unknown; use one of 'sigmoid', 'hard_sigmoid', 'identity'"),
        (NonLocal, {"pairwise": "cosine"}, "pairwise='cosine' is unknown; use one of 'gaussian'"),
        (NonLocal, {"subsample": True}, "subsample=True is unknown; use one of False, 'after', 'before'"),
        (NonLocal, {"norm": "layer"}, "norm='layer' is unknown; use one of 'batch', None"),
        (NonLocal, {"reduction": 33}, "reduction=33 leaves no hidden channel"),
        (Cbam, {"reduction": 33}, "reduction=33 leaves no hidden channel for channels=32; use at most 32"),
        (Cbam, {"reduction": 0}, "reduction=0 is not allowed; give a positive int"),
        (Cbam, {"kernel_size": 4}, "kernel_size=4 is even; give an odd int"),
        (EfficientChannelAttention, {"kernel_size": 2}, "kernel_size=2 is even"),
        (GatherExcite, {"extent": 6}, "extent=6 is not allowed; use 0 .* or a power of two"),
        (GatherExcite, {"extent": 1}, "extent=1 is not allowed"),
        (GatherExcite, {"extent": 0}, "learned=True needs an extent"),
        (GatherExcite, {"reduction": 64}, "reduction=64 leaves no hidden channel"),
        (BilinearAttention, {"groups": 3}, "groups=3 does not divide the 8 hidden channels"),
        (BilinearAttention, {"block_size": 0}, "block_size=0 is not allowed"),
        (BilinearAttention, {"dropout": 1.0}, "dropout=1.0 is no probability below one"),
        (CrissCross, {"recurrence": 0}, "recurrence=0 is not allowed; give an int of at least 1"),
        (CrissCross, {"reduction": 2.0}, "reduction=2.0 is not allowed"),
        (DualAttention, {"reduction": 64}, "reduction=64 leaves no hidden channel"),
        (DisentangledNonLocal, {"temperature": 0}, "temperature=0 is not allowed; use a number above 0"),
        (DisentangledNonLocal, {"temperature": float("nan")}, "temperature=nan is not allowed"),
        (DisentangledNonLocal, {"norm": "layer"}, "norm='layer' is unknown; use one of 'batch', None"),
    ],
)
def test_options_out_of_range_are_named(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(32, **options)


@every_block
def test_channels_must_be_a_count(name):
    cls, options, _ = BLOCKS[name]
    with pytest.raises(ValueError, match="channels=0 is not allowed"):
        cls(0, **options)
