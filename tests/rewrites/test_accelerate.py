"""`accelerate`: the same outputs, gradients and names with our blocks; what stays, and what it refuses."""

import copy
import pickle
import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import timm
import timm.layers
import torch
import torchvision
from timm.layers import BatchNormAct2d, GlobalContext, NonLocalAttn, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import SqueezeExcitation

import gcnet
from gcnet.blocks import ContextBlock, NonLocal
from gcnet.errors import RewriteError
from gcnet.surgery import foreign, record

# ---- whole models: name -> (how it is built, number of foreign blocks)

MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "gcresnet50t": (lambda: timm.create_model("gcresnet50t", num_classes=10), 16),
    "gcresnext50ts": (lambda: timm.create_model("gcresnext50ts", num_classes=10), 16),
    "seresnet50": (lambda: timm.create_model("seresnet50", num_classes=10), 16),
    "efficientnet_b0": (lambda: timm.create_model("efficientnet_b0", num_classes=10), 16),
    "mobilenetv3_large_100": (lambda: timm.create_model("mobilenetv3_large_100", num_classes=10), 8),
    "resnet26t with nl": (lambda: timm.create_model("resnet26t", block_args={"attn_layer": "nl"}), 8),
    "torchvision efficientnet_b0": (lambda: torchvision.models.efficientnet_b0(num_classes=10), 16),
    "torchvision regnet_y_400mf": (lambda: torchvision.models.regnet_y_400mf(num_classes=10), 16),
}


@cache
def built(name: str) -> nn.Module:
    """The model in float64 and eval mode, awake: norms that keep the signal alive, no layer left at zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's and timm's own deprecations
        model = MODELS[name][0]().double()
    randomise(model)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(4))  # the statistics become those of this batch
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1
            floor = 0.1 * norm.running_var.mean()  # a deep channel may hardly vary over this batch
            norm.running_var.add_(floor * (1 + torch.rand_like(norm.running_var)))
    return model.eval()


def images(count: int) -> Tensor:
    """Smooth images that differ: those of white noise would all be one to a network that averages."""
    coarse = torch.randn(count, 3, 5, 5, dtype=torch.float64)
    return nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")


def randomise(model: nn.Module) -> None:
    """Random values for what starts constant: norms, biases, last layers at zero."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or not parameter.any():
            nn.init.normal_(parameter, 0.8 if name.endswith("weight") and parameter.ndim == 1 else 0.0, 0.2)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def foreign_names(model: nn.Module) -> list[str]:
    kinds = (GlobalContext, SEModule, SqueezeExcite, NonLocalAttn, SqueezeExcitation)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_outputs_and_its_names(name):
    model = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    names = foreign_names(model)
    assert len(names) == MODELS[name][1]
    x = images(2)
    with torch.no_grad():
        wanted = model(x)
        result = gcnet.accelerate(model)
        assert relative(result(x), wanted) <= 1e-10
        own_error = relative(copy.deepcopy(model).float()(x.float()).double(), wanted)
        assert relative(copy.deepcopy(result).float()(x.float()).double(), wanted) <= max(1e-5, 2 * own_error)
        assert relative(wanted[:1], wanted[1:]) > 0.05  # the image reaches the logits
        for parameter in result.get_submodule(names[-2]).parameters():
            parameter.mul_(1.2)
        assert relative(result(x), wanted) > 1e-4  # so does a block
    assert not foreign_names(result)
    assert record.rewrites(result) == [{"rewrite": "accelerate", "replaced": names, "kept": {}}]

    def outside(keys: Any) -> list[str]:
        return [key for key in keys if not key.startswith(tuple(f"{name}." for name in names))]

    assert outside(result.state_dict()) == outside(before)
    assert foreign_names(model) == names  # the input is as it was
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# ---- single blocks, in every variant that ours can express


def mmcv_block(name: str, *args: Any, **kwargs: Any) -> nn.Module:
    return getattr(pytest.importorskip("mmcv.cnn.bricks"), name)(*args, **kwargs)


def mmcv_cases() -> dict[str, tuple[Callable[[], nn.Module], int]]:
    cases: dict[str, tuple[Callable[[], nn.Module], int]] = {}
    for pool in ("att", "avg"):
        for fusion in (("channel_add",), ("channel_mul",), ("channel_add", "channel_mul")):
            build = partial(mmcv_block, "ContextBlock", 16, 0.25, pooling_type=pool, fusion_types=fusion)
            cases[f"mmcv ContextBlock {pool} {'+'.join(fusion)}"] = (build, 2)
    for mode in ("gaussian", "embedded_gaussian", "dot_product", "concatenation"):
        for sub in (False, True):
            build = partial(mmcv_block, "NonLocal2d", 16, mode=mode, sub_sample=sub)
            cases[f"mmcv NonLocal2d {mode} sub={sub}"] = (build, 2)
    for dims in (1, 2, 3):
        norm = {"type": "BN1d" if dims == 1 else "BN" if dims == 2 else "BN3d"}
        build = partial(mmcv_block, f"NonLocal{dims}d", 16, reduction=4, sub_sample=True, norm_cfg=norm)
        cases[f"mmcv NonLocal{dims}d norm"] = (build, dims)
    cases["mmcv NonLocal2d unscaled"] = (partial(mmcv_block, "NonLocal2d", 16, use_scale=False), 2)
    return cases


BLOCKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "timm GlobalContext": (partial(GlobalContext, 16), 2),
    "timm GlobalContext add": (partial(GlobalContext, 16, fuse_add=True, fuse_scale=False, rd_ratio=0.25), 2),
    "timm GlobalContext both": (partial(GlobalContext, 16, fuse_add=True, gate_layer="hard_sigmoid"), 2),
    "timm GlobalContext average": (partial(GlobalContext, 16, use_attn=False, act_layer="silu"), 2),
    "timm SEModule": (partial(SEModule, 16, rd_ratio=0.5), 2),
    "timm SEModule no bias": (partial(SEModule, 16, bias=False, act_layer="gelu"), 2),
    "timm SEModule norm": (partial(SEModule, 16, norm_layer=timm.layers.LayerNorm2d, gate_layer="hard_sigmoid"), 2),
    "timm SEModule no activation": (partial(SEModule, 16, act_layer=nn.Identity), 2),
    "timm SqueezeExcite": (partial(SqueezeExcite, 16, act_layer=nn.SiLU), 2),
    "timm SqueezeExcite hard": (partial(SqueezeExcite, 16, gate_layer=nn.Hardsigmoid, act_layer=nn.Hardswish), 2),
    "timm NonLocalAttn": (partial(NonLocalAttn, 16, rd_ratio=0.5), 2),
    "timm NonLocalAttn unscaled": (partial(NonLocalAttn, 16, use_scale=False, rd_channels=5), 2),
    "torchvision SqueezeExcitation": (partial(SqueezeExcitation, 16, 4), 2),
    "torchvision SqueezeExcitation hard": (partial(SqueezeExcitation, 16, 4, nn.SiLU, nn.Hardsigmoid), 2),
    **mmcv_cases(),
}


def awake(name: str) -> nn.Module:
    """The block in float64 with random values everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv's imports
        block = BLOCKS[name][0]().double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    for key, buffer in block.named_buffers():
        if "running" in key:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return block


def sample(name: str) -> Tensor:
    return torch.randn(3, 16, *{1: (9,), 2: (6, 5), 3: (3, 4, 5)}[BLOCKS[name][1]], dtype=torch.float64)


def counterpart(value: Tensor, block: nn.Module) -> str:
    """The name of the parameter that holds the same numbers: what no table can get wrong."""
    same = [k for k, p in block.named_parameters() if p.numel() == value.numel() and torch.equal(p.flatten(), value)]
    assert len(same) == 1
    return same[0]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_keeps_outputs_gradients_and_statistics(name, training):
    theirs = awake(name).train(training)
    ours = gcnet.accelerate(theirs)
    assert type(ours) is (NonLocal if "NonLocal" in name else ContextBlock)
    assert ours.training is training
    pairs = {key: counterpart(p.detach().flatten(), theirs) for key, p in ours.named_parameters()}
    assert len(set(pairs.values())) == len(pairs)
    rest = {key for key, _ in theirs.named_parameters()} - set(pairs.values())
    assert rest == ({"z.bias"} if "NonLocalAttn" in name else set())
    x = sample(name)
    cotangent = torch.randn_like(x)
    differentiable = "concatenation" not in name  # mmcv divides in place there, which its own backward refuses
    with torch.set_grad_enabled(differentiable):
        inputs = [x.clone().requires_grad_(differentiable) for _ in range(2)]
        wanted, out = theirs(inputs[0]), ours(inputs[1])
    assert relative(out - x, wanted - x) <= 1e-10
    if differentiable:
        wanted.backward(cotangent)
        out.backward(cotangent)
        assert relative(inputs[1].grad, inputs[0].grad) <= 1e-10
        for key, parameter in ours.named_parameters():
            grad = theirs.get_parameter(pairs[key]).grad
            largest = max(float(p.grad.norm()) for p in theirs.parameters())  # some are zero in theory: a bias of keys
            assert float((parameter.grad.flatten() - grad.flatten()).norm()) <= 1e-10 * largest, key
    # statistics moved alike, if there are any; in eval mode they are what the next output depends on
    assert relative(ours.eval()(x) - x, theirs.eval()(x) - x) <= 1e-10
    single = copy.deepcopy(theirs).float()
    wanted, out = single(x.float()) - x.float(), gcnet.accelerate(single)(x.float()) - x.float()
    assert relative(out, wanted) <= max(1e-5, 2 * relative(wanted.double(), theirs(x) - x))


def test_mmcv_is_recognised_without_importing_it(monkeypatch):
    block = awake("mmcv ContextBlock att channel_add")
    for module in [name for name in sys.modules if name.split(".")[0] in ("mmcv", "mmengine")]:
        monkeypatch.setitem(sys.modules, module, None)  # an import raises now
    assert type(gcnet.accelerate(nn.Sequential(block))[0]) is ContextBlock


# ---- what stays


class OwnSqueeze(SEModule):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def with_dropout() -> nn.Module:
    block = GlobalContext(16)
    block.mlp_scale.drop.p = 0.1
    return block


def patched() -> nn.Module:
    block = SEModule(16)
    block.forward = nn.Identity().forward  # type: ignore[method-assign]
    return block


def without_biases_of(layer: str) -> nn.Module:
    block = NonLocalAttn(16)
    getattr(block, layer).bias = None
    return block


def with_norm(norm: nn.Module) -> nn.Module:
    block = NonLocalAttn(16)
    block.norm = norm
    return block


def wide_se() -> nn.Module:
    block = SEModule(16)
    block.fc1 = nn.Conv2d(16, 8, 3, padding=1)
    return block


def parametrised() -> nn.Module:
    block = SEModule(16)
    nn.utils.parametrizations.weight_norm(block.fc1)
    return block


def unlike_branches() -> nn.Module:
    block = GlobalContext(16, fuse_add=True)
    block.mlp_add.act = nn.SiLU()
    return block


KEPT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "subclass": (lambda: OwnSqueeze(16), "OwnSqueeze: it is a subclass of SEModule"),
    "maximum": (lambda: SEModule(16, add_maxpool=True), "SEModule: it adds the maximum"),
    "batch norm": (lambda: SEModule(16, norm_layer=nn.BatchNorm2d), "bottleneck is a BatchNorm2d"),
    "norm and activation": (lambda: SEModule(16, norm_layer=BatchNormAct2d), "bottleneck is a BatchNormAct2d"),
    "activation": (lambda: SEModule(16, act_layer=nn.ReLU6), r"activation of its bottleneck is ReLU6"),
    "tanh gelu": (lambda: SEModule(16, act_layer=partial(nn.GELU, "tanh")), "bottleneck is GELU"),
    "gate": (lambda: GlobalContext(16, gate_layer="tanh"), "its gate is a Tanh"),
    "no branch": (lambda: GlobalContext(16, fuse_scale=False), "neither scales nor adds"),
    "dropout": (with_dropout, "it has dropout"),
    "unlike branches": (unlike_branches, "two branches differ"),
    "3x3": (wide_se, "no plain 1x1 convolution"),
    "parametrised": (parametrised, "not a plain convolution"),
    "patched": (patched, "forward was replaced on the instance"),
    "effective SE": (lambda: timm.layers.EffectiveSEModule(16), "its single layer has a bias"),
    "inner channels": (lambda: NonLocalAttn(16, rd_channels=7), "7 inner channels are no channels // reduction of its"),
    "group norm": (lambda: with_norm(nn.GroupNorm(4, 16)), "last layer is a GroupNorm"),
    "no statistics": (lambda: with_norm(nn.BatchNorm2d(16, track_running_stats=False)), "last layer is BatchNorm2d"),
    "no bias": (lambda: without_biases_of("t"), "ours needs a t.bias of 8"),
    "pool": (lambda: _other_pool(), "its pool is AdaptiveAvgPool2d"),
}


def _other_pool() -> nn.Module:
    block = SqueezeExcitation(16, 4)
    block.avgpool = nn.AdaptiveAvgPool2d((2, 1))
    return block


@pytest.mark.parametrize("case", KEPT)
def test_a_block_that_ours_cannot_say_exactly_stays(case):
    build, reason = KEPT[case]
    block = build().eval()
    result = gcnet.accelerate(nn.Sequential(SEModule(16), block))
    assert type(result[0]) is ContextBlock
    assert type(result[1]) is type(block)
    assert record.rewrites(result)[-1]["replaced"] == ["0"]
    kept = record.rewrites(result)[-1]["kept"]
    assert list(kept) == ["1"]
    with pytest.raises(RewriteError, match=f"can be expressed exactly by ours: the model itself .*{reason}"):
        gcnet.accelerate(block)


def test_a_block_that_carries_an_inserted_one_stays():
    model = gcnet.insert(nn.Sequential(SEModule(16), SEModule(16)), at="0", example=torch.ones(1, 16, 4, 4))
    result = gcnet.accelerate(model)
    assert (type(result[0]), type(result[1])) == (SEModule, ContextBlock)
    assert "0: SEModule: it holds tensors that ours has no place for: context.add" in _kept(result)
    x = torch.randn(2, 16, 4, 4)
    assert relative(result(x), model(x)) <= 1e-5


def _kept(model: nn.Module) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in record.rewrites(model)[-1]["kept"].items())


def test_a_layer_tied_to_another_module_stays():
    block, other = SEModule(16), nn.Conv2d(16, 8, 1)
    other.weight = block.fc1.weight
    result = gcnet.accelerate(nn.Sequential(block, other.requires_grad_(), SEModule(8)))
    assert result[0].fc1.weight is result[1].weight
    assert record.rewrites(result)[-1]["kept"] == {"0": "SEModule: it shares a parameter with another module"}


# ---- what is carried over


def small() -> nn.Module:
    """All kinds in a row, timm's and torchvision's."""
    layers = [GlobalContext(16), SEModule(16), NonLocalAttn(16), GlobalContext(16, fuse_add=True)]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *layers, SqueezeExcitation(16, 4))
    randomise(model)
    return model.eval()


def test_a_shared_block_stays_shared():
    block = SEModule(16)
    model = nn.ModuleDict({"a": block, "b": nn.Sequential(nn.Identity(), block), "c": SEModule(16)})
    result = gcnet.accelerate(model)
    assert result["a"] is result["b"][1]
    assert result["a"] is not result["c"]
    assert record.rewrites(result)[-1]["replaced"] == ["a", "b.1", "c"]


def test_dtype_mode_and_frozen_parameters_are_kept():
    model = small().to(torch.bfloat16).train()
    model[3].norm.eval().float()
    model[3].norm.momentum, model[3].norm.eps = 0.3, 1e-3
    model[2].fc1.weight.requires_grad_(False)
    model[1].eval()
    result = gcnet.accelerate(model)
    assert not result[2].scale.reduce.weight.requires_grad
    assert result[2].scale.reduce.bias.requires_grad
    assert [module.training for module in result] == [True, False, True, True, True, True]
    norm = result[3].norm
    assert (norm.training, norm.momentum, norm.eps) == (False, 0.3, 1e-3)
    assert norm.weight.dtype == norm.running_mean.dtype == torch.float32
    assert result[3].g.weight.dtype == torch.bfloat16
    assert result[1].scale.norm.eps == 1e-6


def test_a_model_without_storage_is_rewritten_without_storage():
    with torch.device("meta"):
        model = nn.Sequential(GlobalContext(16), NonLocalAttn(16))
    assert {p.device.type for p in gcnet.accelerate(model).parameters()} == {"meta"}


def test_building_draws_no_random_numbers():
    model = small()
    state = torch.get_rng_state()
    gcnet.accelerate(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_last_goes_through():
    model = small().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 9, 8).to(memory_format=torch.channels_last)
    result = gcnet.accelerate(model)
    assert result[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert result(x).is_contiguous(memory_format=torch.channels_last)
    assert relative(result(x), model(x)) <= 1e-5


@pytest.mark.parametrize("rewrite", [gcnet.accelerate, foreign.convert])
def test_the_block_is_left_as_it_was_and_shares_nothing(rewrite):
    block = awake("timm NonLocalAttn")
    before = copy.deepcopy(block.state_dict())
    result = rewrite(block)
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())
    theirs = {t.untyped_storage().data_ptr() for t in block.state_dict().values()}
    assert not theirs & {t.untyped_storage().data_ptr() for t in result.state_dict().values()}


def test_blocks_that_insert_put_in_are_still_listed():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
    result = gcnet.accelerate(gcnet.insert(model, SEModule, at="0"))
    assert {name: type(block) for name, block in gcnet.inserted(result).items()} == {"0.context": ContextBlock}
    assert [rewrite["rewrite"] for rewrite in record.rewrites(result)] == ["insert", "accelerate"]


def test_the_record_of_a_root_is_kept():
    block = SEModule(16)
    record.set_classes(block, ["a", "b"])
    assert record.classes(gcnet.accelerate(block)) == ["a", "b"]


# ---- the result as a model


def test_the_result_is_copied_pickled_compiled_and_exported():
    result = gcnet.accelerate(small())
    x = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        wanted = result(x)
        assert torch.equal(copy.deepcopy(result)(x), wanted)
        assert torch.equal(pickle.loads(pickle.dumps(result))(x), wanted)
        fresh = gcnet.accelerate(small())
        fresh.load_state_dict(result.state_dict())
        assert torch.equal(fresh(x), wanted)
        compiled = torch.compile(result, fullgraph=True, backend="eager")
        assert relative(compiled(x), wanted) <= 1e-6
        exported = torch.export.export(result, (x,)).module()
        assert relative(exported(x), wanted) <= 1e-6


def test_a_feature_extractor_of_torchvision_is_rewritten():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), SqueezeExcitation(16, 4), nn.ReLU())
    extractor = create_feature_extractor(model, {"2": "out"})
    x = torch.randn(2, 3, 9, 8)
    result = gcnet.accelerate(extractor)
    assert type(result.get_submodule("1")) is ContextBlock
    assert relative(result(x)["out"], extractor(x)["out"]) <= 1e-5


def test_accelerating_again_gives_a_copy():
    once = gcnet.accelerate(nn.Sequential(SEModule(16), SEModule(16, add_maxpool=True)))
    twice = gcnet.accelerate(once)
    assert twice is not once
    assert record.rewrites(twice) == record.rewrites(once)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
    gcnet.accelerate(nn.Sequential(gcnet.create_block("gc", 16)))  # ours alone: nothing to do, nothing on record
    once[0] = nn.Identity()
    gcnet.accelerate(once)  # the record tells, even when another rewrite has taken our blocks


def test_the_record_rebuilds_the_structure_from_the_plain_model():
    build = partial(gcnet.create_model, "timm/seresnet18", num_classes=3)
    saved = gcnet.accelerate(gcnet.insert(build(), "gc", stages="c5"))
    fresh = gcnet.accelerate(gcnet.insert(build(), "gc", stages="c5"))
    assert record.rewrites(fresh) == record.rewrites(saved)
    fresh.load_state_dict(saved.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(fresh.eval()(x), saved.eval()(x))


# ---- refusals


def test_a_model_without_foreign_blocks_is_an_error_that_says_what_is_looked_for():
    with pytest.raises(RewriteError, match=r"this Conv2d holds no block .*timm\..*SEModule, .*mmcv\..*NonLocal3d"):
        gcnet.accelerate(nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"],
)
@pytest.mark.parametrize("inner", ["0", "0.fc1"])
def test_hooks_on_a_block_are_refused(register, inner):
    model = nn.Sequential(SEModule(16), nn.ReLU())
    handle = getattr(model.get_submodule(inner), register)(print)
    with pytest.raises(RewriteError, match=f"model: {inner} .* has hooks .*remove them, accelerate, and register"):
        gcnet.accelerate(model)
    handle.remove()
    getattr(model[1], register)(print)  # elsewhere they are none of our business
    gcnet.accelerate(model)


def test_a_compiled_model_is_refused():
    with pytest.raises(TypeError, match="module '0' of the model is compiled; give the eager model"):
        gcnet.accelerate(nn.Sequential(torch.compile(SEModule(16))))
