"""`insert`: where blocks go, what it refuses, and that its result is an ordinary model."""

import copy
import functools
import io
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

import gcnet
from gcnet.blocks import GlobalContext
from gcnet.rewrites import RewriteError
from tests.rewrites.models import awake, build


class Net(nn.Module):
    """Some model of nobody's family."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.encoder = nn.ModuleDict({f"stage{i}": Stage() for i in (1, 2)})
        self.twice = nn.ReLU()
        self.act = nn.Sigmoid()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.twice(self.stem(x))
        for stage in self.encoder.values():
            x = stage(x)
        return self.fc(self.pool(self.act(self.twice(x))).flatten(1))


class Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv_out = nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return x + self.conv_out(self.conv_in(x))


@pytest.fixture(scope="module")
def resnet():
    return build("torchvision BasicBlock")


@pytest.fixture(scope="module")
def bottleneck():
    return build("torchvision Bottleneck")


def names(model: nn.Module) -> list[str]:
    return list(gcnet.inserted(model))


# ---- where


def test_defaults_are_those_of_the_papers(bottleneck):
    every = [f"layer{s}.{i}.context" for s, n in ((2, 4), (3, 6), (4, 3)) for i in range(n)]
    for block in ("gc", "snl", "se", "context"):
        assert names(gcnet.insert(bottleneck, block)) == every
    assert names(gcnet.insert(bottleneck, "nl")) == ["layer3.5.context_before"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stages": "c5"}, ["layer4.0.context", "layer4.1.context"]),
        ({"stages": ("c2", "c5"), "where": "last"}, ["layer1.1.context", "layer4.1.context"]),
        ({"stages": ("c4", "c3"), "where": 0}, ["layer2.0.context", "layer3.0.context"]),
        ({"stages": ("c3",), "where": (-1, 0)}, ["layer2.0.context", "layer2.1.context"]),
        ({"stages": ("c3",), "where": "-1, 0"}, ["layer2.0.context", "layer2.1.context"]),
        ({"stages": ("c3",), "where": "-1"}, ["layer2.1.context"]),
        ({"stages": ("c3",), "position": "after_add"}, ["layer2.0.context_sum", "layer2.1.context_sum"]),
        ({"stages": ("c3",), "where": "before_last"}, ["layer2.1.context_before"]),
    ],
)
def test_stages_units_and_positions(resnet, options, expected):
    assert names(gcnet.insert(resnet, "gc", **options)) == expected


def test_before_last_of_a_single_unit_sits_on_the_previous_stage_with_its_channels():
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
    result = gcnet.insert(model, "nl")
    assert names(result) == ["layer3.0.context_before"]
    assert gcnet.inserted(result)["layer3.0.context_before"].channels == 128


def test_stages_are_counted_by_order_also_when_dilated():
    model = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True], width_per_group=8)
    assert names(gcnet.insert(model, "gc", stages="c5", where="last")) == ["layer4.2.context"]


def test_stages_elsewhere_are_strides():
    model = timm.create_model("efficientnet_lite0")
    result = gcnet.insert(model, "gc", stages="c4", reduction=4)
    assert {name.split(".")[1] for name in names(result)} == {"3", "4"}  # blocks.3 and blocks.4 both have stride 16


def test_after_1x1_is_before_the_addition_and_after_add_before_the_relu(resnet):
    def minus_one(channels: int) -> nn.Module:
        return Minus()

    x = torch.randn(1, 64, 8, 8).relu()
    unit = gcnet.insert(resnet, minus_one, stages="c2", where=0).layer1[0]
    plain = resnet.layer1[0]
    with torch.no_grad():
        branch = plain.bn2(plain.conv2(plain.relu(plain.bn1(plain.conv1(x)))))
    torch.testing.assert_close(unit(x), (branch - 1 + x).relu())
    unit = gcnet.insert(resnet, minus_one, stages="c2", where=0, position="after_add").layer1[0]
    torch.testing.assert_close(unit(x), (branch + x - 1).relu())
    assert float(unit(x).detach().min()) == 0


class Minus(nn.Module):
    def forward(self, x):
        return x - 1


def test_two_blocks_in_different_places_go_together(resnet):
    both = gcnet.insert(gcnet.insert(resnet, "gc", stages="c3"), "nl", stages="c4")
    assert names(both) == ["layer2.0.context", "layer2.1.context", "layer3.1.context_before"]
    assert names(gcnet.insert(both, "gc", stages="c4"))[-1] == "layer3.1.context"
    assert [r["block"] for r in both.gcnet_rewrites] == ["gc", "nl"]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("encoder.stage*.conv_out", ["encoder.stage1.conv_out.context", "encoder.stage2.conv_out.context"]),
        ("encoder.stage1.conv_in", ["encoder.stage1.conv_in.context"]),
        ("**.conv_out", ["encoder.stage1.conv_out.context", "encoder.stage2.conv_out.context"]),
        (("stem", "encoder.stage?"), ["stem.context", "encoder.stage1.context", "encoder.stage2.context"]),
        ("act", ["act.context"]),
    ],
)
def test_globs_put_blocks_on_the_outputs_of_any_model(at, expected):
    model, x = Net().eval(), torch.randn(2, 3, 32, 32)
    result = gcnet.insert(model, "gc", at=at, reduction=4)
    assert names(result) == expected
    assert torch.equal(result(x), model(x))
    awake(result, gcnet.inserted(result))
    assert not torch.equal(result(x), model(x))


def test_a_block_on_the_model_itself_when_it_is_inside_another():
    wrapped = nn.Sequential(Net().stem, nn.ReLU())
    result = gcnet.insert(wrapped, "gc", at="1", reduction=2)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(result(x), wrapped(x))


@pytest.mark.parametrize(("conv", "size"), [(nn.Conv1d, (20,)), (nn.Conv3d, (4, 6, 6))])
@pytest.mark.parametrize("block", ["gc", "nl", "dnl"])
def test_maps_of_one_and_three_dimensions(conv, size, block):
    model = nn.Sequential(conv(2, 8, 3), nn.ReLU(), conv(8, 4, 1))
    result = gcnet.insert(model, block, at="1", reduction=2)
    x = torch.randn(2, 2, *size)
    assert torch.equal(result(x), model(x))


def test_an_example_helps_where_nothing_can_be_guessed():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(6, 8, 1), nn.ReLU()

        def forward(self, x, y):
            return self.act(self.conv(torch.cat([x, y], 1)))

    with pytest.raises(RewriteError, match=r"no dummy input suits the model .* give one, for instance example="):
        gcnet.insert(Odd(), at="act")
    halves = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, 4)
    assert names(gcnet.insert(Odd(), at="act", reduction=4, example=halves)) == ["act.context"]
    with pytest.raises(RewriteError, match="the model fails on the given example"):
        gcnet.insert(Odd(), at="act", example=torch.zeros(1, 3, 4, 4))


def test_a_callable_builds_the_block(resnet):
    result = gcnet.insert(resnet, functools.partial(GlobalContext, reduction=4), stages="c5")
    assert gcnet.inserted(result)["layer4.0.context"].add.reduce.out_features == 128


# ---- respect for the model


def test_the_input_is_never_touched(resnet):
    before = pickle.dumps(resnet)
    for options in ({}, {"block": "nl"}, {"position": "after_add"}, {"at": "layer1.0"}):
        gcnet.insert(resnet, **options)
    with pytest.raises(RewriteError):
        gcnet.insert(resnet, stages=("c3", "c9"))
    assert pickle.dumps(resnet) == before


def test_mode_dtype_format_and_gradients_flags_are_respected():
    model = build("torchvision BasicBlock").double().to(memory_format=torch.channels_last)
    model.train()
    model.layer3.eval()
    model.layer1.requires_grad_(False)
    result = gcnet.insert(model, "cbam", stages=("c2", "c4"))
    blocks = gcnet.inserted(result)
    assert result.training
    assert not blocks["layer3.0.context"].training
    assert blocks["layer1.0.context"].training
    assert not any(p.requires_grad for p in result.layer1[0].conv1.parameters())
    assert all(p.requires_grad for p in blocks["layer1.0.context"].parameters())
    assert all(p.dtype == torch.float64 for p in result.parameters())
    spatial = [p for p in blocks["layer1.0.context"].parameters() if p.ndim == 4 and p.shape[2] > 1 and p.shape[1] > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in spatial)
    assert result.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_meta_device_and_half_precision():
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    assert all(p.is_meta for p in gcnet.insert(model, "gc").parameters())
    half = gcnet.insert(build("torchvision BasicBlock").bfloat16(), "gc")
    assert half(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_batch_norm_statistics_do_not_move(resnet):
    model = copy.deepcopy(resnet).train()
    mean = model.bn1.running_mean.clone()
    result = gcnet.insert(timm.create_model("efficientnet_lite0").train(), "gc")  # probed by a dummy forward
    assert result.training
    assert int(result.bn1.num_batches_tracked) == 0
    assert torch.equal(gcnet.insert(model, at="layer1.0").bn1.running_mean, mean)


def test_training_mode_gives_the_same_first_step(resnet):
    model = copy.deepcopy(resnet).train()
    result = gcnet.insert(model, "gc")
    x = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(result(x), model(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result.bn1.running_mean, model.bn1.running_mean)


def test_old_weights_load_before_or_after(resnet):
    result = gcnet.insert(torchvision.models.resnet18(num_classes=10).eval(), "gc")
    missing = result.load_state_dict(resnet.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(".context." in key for key in missing.missing_keys)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(result(x), resnet(x))


def test_sync_batch_norm_conversion_keeps_the_blocks():
    for family, convert in (
        ("torchvision BasicBlock", nn.SyncBatchNorm.convert_sync_batchnorm),
        ("timm ResNet", nn.SyncBatchNorm.convert_sync_batchnorm),
        ("timm RegNet", timm.layers.convert_sync_batchnorm),  # its norms hold an activation
    ):
        result = gcnet.insert(build(family), "gc")
        awake(result, gcnet.inserted(result))
        x = torch.randn(1, 3, 64, 64)
        before = result(x)
        converted = convert(result).eval()
        assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
        torch.testing.assert_close(converted(x), before)


def test_a_block_that_a_tool_cut_off_is_reported():
    model = gcnet.insert(Net().eval(), at="encoder.stage1.conv_in.1", reduction=4)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with pytest.raises(RewriteError, match=r"'encoder.stage1.conv_in.1.context' is no longer called: .* SyncBatchNorm"):
        gcnet.inserted(converted)


def test_hooks_of_others_on_the_same_module_are_kept():
    model = Net().eval()
    calls = []
    model.act.register_forward_hook(lambda *_: calls.append("theirs"))
    result, x = gcnet.insert(model, at="act", reduction=4), torch.randn(1, 3, 16, 16)
    calls.clear()
    for _ in range(3):
        result.act.register_forward_hook(lambda *_: calls.append("later"))
    assert torch.equal(result(x), model(x))
    assert calls == ["theirs", "later", "later", "later", "theirs"]


@pytest.mark.parametrize(
    ("family", "position"),
    [
        ("torchvision BasicBlock", "after_1x1"),
        ("torchvision Bottleneck", "after_add"),
        ("timm ResNet", "after_1x1"),
        ("timm ResNet", "after_add"),
        ("torchvision EfficientNet", "after_1x1"),  # a Sequential calls the block
    ],
)
@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_on_a_block_sees_the_gradient(family, position, register):
    model = gcnet.insert(build(family), "gc", stages="c4", where="last", position=position)
    (block,) = gcnet.inserted(model).values()
    seen, x = [], torch.randn(1, 3, 64, 64)
    expected = model(x)
    getattr(block, register)(lambda module, *gradients: seen.append(gradients[-1][0]))
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    assert [bool(gradient.abs().sum()) for gradient in seen] == [True]


def test_a_hook_registered_after_unpickling_does_not_push_the_block_out(monkeypatch):
    model, x = gcnet.insert(Net().eval(), at="act", reduction=4), torch.randn(1, 3, 16, 16)
    awake(model, gcnet.inserted(model))
    expected = model(x)
    monkeypatch.setattr(torch.utils.hooks.RemovableHandle, "next_id", 0)  # as in a new process
    other = pickle.loads(pickle.dumps(model))
    for _ in range(3):
        other.act.register_forward_hook(lambda *_: None)
    assert torch.equal(other(x), expected)


# ---- an ordinary model


RESULTS = {
    "slots": lambda: gcnet.insert(build("torchvision BasicBlock"), "gc", fusion="both"),
    "sum": lambda: gcnet.insert(build("torchvision BasicBlock"), "se", position="after_add"),
    "hooks": lambda: gcnet.insert(build("timm ResNet"), "gc"),
    "nl": lambda: gcnet.insert(build("torchvision BasicBlock"), "nl", pairwise="concatenation"),
    "at": lambda: gcnet.insert(Net().eval(), "gc", at=("act", "encoder.stage*.conv_in"), reduction=4),
}


@pytest.fixture(scope="module", params=RESULTS)
def result(request):
    model = RESULTS[request.param]()
    awake(model, gcnet.inserted(model))
    return model


def test_survives_deepcopy_pickle_and_state_dict(result):
    x = torch.randn(1, 3, 64, 64)
    expected = result(x)
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    copies = [copy.deepcopy(result), pickle.loads(pickle.dumps(result)), torch.load(file, weights_only=False)]
    for other in copies:
        assert torch.equal(other(x), expected)
        assert names(other) == names(result)
        for p in other.parameters():
            p.data.zero_()
    assert torch.equal(result(x), expected)
    copies[0].load_state_dict(result.state_dict())
    assert torch.equal(copies[0](x), expected)


def test_compiles_to_one_graph_and_exports(result):
    torch._dynamo.reset()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.compile(result, backend="eager", fullgraph=True)(x), result(x))
    program = torch.export.export(result, (x,))
    torch.testing.assert_close(program.module()(x), result(x))


def test_takes_channels_last_and_autocast(result):
    x = torch.randn(2, 3, 64, 64)
    expected = result(x)
    last = copy.deepcopy(result).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(result(x)).all()


def test_trains_under_ddp_without_unused_parameters(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = gcnet.insert(torchvision.models.resnet18(num_classes=2), "gc")
        ddp = nn.parallel.DistributedDataParallel(model)  # raises in the second forward if any parameter is unused
        for _ in range(2):
            ddp(torch.randn(2, 3, 64, 64)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


# ---- refusals


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stages": ("c3", "c6")}, r"no stage 'c6'; it has c2 \(2 units from layer1.0\), c3"),
        ({"stages": ()}, r"stages=\(\) names no stage; this model has c2"),
        ({"where": "first"}, "where='first' is unknown; use one of 'all', 'last', 'before_last', or indices"),
        ({"where": 2}, "where=2: stage c3 has no unit 2; its units are 0 to 1"),
        ({"where": ()}, "names no unit; stage c3 has units 0 to 1"),
        ({"where": 1.5}, "where=1.5 is unknown"),
        ({"position": "after_relu"}, "position='after_relu' is unknown; use one of 'after_1x1', 'after_add'"),
        ({"at": "layer9.*"}, r"at='layer9.\*' matches no module; .*conv1"),
        ({"at": "layer1.*.conv9"}, r"matches no module; .*layer1.0.conv1"),
        ({"at": ()}, r"at=\(\) names no module"),
        ({"at": ("layer1", "layer1.0")}, r"ambiguous: it matches 'layer1' and, inside it, layer1.0"),
        ({"at": "**"}, "is ambiguous"),
        ({"at": "layer1.0.relu"}, "is called 2 times in one forward pass"),
        ({"at": "fc"}, r"'fc' \(Linear\) puts out shape \(1, 10\); a block needs a map"),
        ({"at": "layer1", "stages": "c2"}, "stages='c2' does not go with at='layer1'"),
        ({"at": "layer1", "where": "all"}, "where='all' does not go with at"),
        ({"at": "layer1", "position": "after_add"}, "position='after_add' does not go with at"),
        ({"block": "gcc"}, "block 'gcc' is unknown; use one of gc"),
        ({"reduction": 1024}, "reduction=1024 leaves no hidden channel for channels=128"),
    ],
)
def test_misfits_are_named_with_what_would_fit(resnet, options, match):
    with pytest.raises(ValueError, match=match):
        gcnet.insert(resnet, **options)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: "resnet18", "model is a str; expected a torch.nn.Module"),
        (lambda m: torch.compile(m), "the model is compiled; give the eager model, then call torch.compile"),
        (lambda m: nn.Sequential(torch.compile(m)), "module '0' of the model is compiled"),
        (lambda m: nn.DataParallel(m), "the model is wrapped in DataParallel; give its .module, then wrap the result"),
    ],
)
def test_models_that_must_come_first_are_named(resnet, make, match):
    with pytest.raises(TypeError, match=match):
        gcnet.insert(make(resnet))


def test_a_model_compiled_in_place_or_scripted_is_named():
    model = Net()
    model.compile()
    with pytest.raises(TypeError, match="the model is compiled"):
        gcnet.insert(model, at="act")
    with pytest.warns((FutureWarning, DeprecationWarning), match="torch.jit.script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 1)))
    with pytest.raises(TypeError, match=r"is scripted \(TorchScript\); give the eager model"):
        gcnet.insert(scripted, at="0")


def test_options_of_another_block_are_named(resnet):
    with pytest.raises(TypeError, match="block 'nl' has no option 'fusion'; it has pairwise, reduction, scale"):
        gcnet.insert(resnet, "nl", fusion="add")
    with pytest.raises(TypeError, match="options reduction go with a block's name; put them into the callable"):
        gcnet.insert(resnet, GlobalContext, reduction=4)
    with pytest.raises(TypeError, match="block=3 is a int; give a name"):
        gcnet.insert(resnet, 3)
    with pytest.raises(TypeError, match="block returned a int"):
        gcnet.insert(resnet, lambda channels: channels)


@pytest.mark.parametrize("options", [{}, {"at": "layer2.0"}, {"block": "nl"}, {"position": "after_add"}])
def test_a_place_holds_one_block(resnet, options):
    once = gcnet.insert(resnet, **options)
    with pytest.raises(RewriteError, match="already has a block at this place"):
        gcnet.insert(once, **options)


def test_strange_models_are_told_what_to_do():
    with pytest.raises(RewriteError, match=r"Net is of no family .* at='GLOB', for example one of stem, encoder"):
        gcnet.insert(Net())
    with pytest.raises(RewriteError, match=r"holds 2 ResNets \('0', '1'\); insert into one of them"):
        gcnet.insert(nn.Sequential(torchvision.models.resnet18(), torchvision.models.resnet18()))
    model = Net()
    model.idle = nn.ReLU()
    with pytest.raises(RewriteError, match=r"'idle' \(ReLU\) is not called in a forward pass"):
        gcnet.insert(model, at="idle")
    with pytest.raises(RewriteError, match="'encoder' is a Chain that runs its own children"):
        gcnet.insert(Encoders(), at="encoder", reduction=2)


class Encoders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Chain({"a": nn.Conv2d(3, 4, 1)})

    def forward(self, x):
        return self.encoder(x)


class Chain(nn.ModuleDict):
    def forward(self, x):
        for child in self.values():
            x = child(x)
        return x


def test_a_block_on_a_block_is_refused_for_what_it_is():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), gcnet.create_block("gc", 8, reduction=2))
    with pytest.raises(ValueError, match=r"1 is a GlobalContext, which has a 'context' of its own"):
        gcnet.insert(model, "se", at="1", reduction=2)
