"""`fold`: the same outputs without norms and wide reads; what it merges, what it leaves, what it refuses."""

import copy
import pickle
import warnings

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

import gcnet
from gcnet.blocks import ContextBlock, NonLocal
from gcnet.errors import RewriteError
from gcnet.rewrites.folding.dataflow import Dataflow
from gcnet.rewrites.folding.layers import ContextThenConv, FoldedBlock, FoldedContext
from gcnet.surgery import record
from gcnet.surgery.same_outputs import check_same
from tests.rewrites.models import FAMILIES, awake, build, outputs

# family -> modules of a folded model with "gc": blocks in a 1x1 convolution, blocks writing into their map
EXPECTED = {
    "torchvision BasicBlock": (0, 6),
    "torchvision Bottleneck": (13, 0),
    "torchvision ResNeXt": (6, 0),
    "torchvision RegNet": (15, 0),
    "torchvision EfficientNet": (0, 13),
    "timm ResNet": (6, 0),
    "timm ByobNet": (6, 0),
    "timm RegNet": (12, 0),
    "timm MobileNetV3": (0, 10),
    "detector": (0, 6),
}
CHOICES = [
    {"pool": "attention", "fusion": "add"},
    {"pool": "average", "fusion": "scale", "gate": "identity"},
    {"pool": "attention", "fusion": "both", "gate": "sigmoid", "norm": False},
    {"pool": "average", "fusion": "add", "transform": "linear"},
    {"pool": "attention", "fusion": "both", "transform": "linear", "gate": "hard_sigmoid"},
    {"pool": "attention", "fusion": "scale", "activation": "gelu", "bias": False},
    {"pool": "average", "fusion": "both", "activation": None},
]
SIZES = [(1, 8, 6, 7), (3, 8, 6, 7), (1, 8, 2, 2), (2, 8, 1, 1)]


def relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def count(model: nn.Module, kind: type) -> int:
    return sum(type(module) is kind for module in model.modules())


class Branch(nn.Sequential):
    """conv 1x1, norm, block on a map of 8 channels; a tiny model of one branch."""

    def __init__(self, block: nn.Module, out: int = 24, dims: int = 2) -> None:
        conv, norm = (
            (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1],
            (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1],
        )
        super().__init__(conv(8, 8, 3, padding=1), nn.ReLU(), conv(8, out, 1), norm(out), block)
        for module in self:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)


@pytest.mark.parametrize("block", ["gc", "se"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_same_outputs(family, block):
    model = gcnet.insert(build(family), block)
    awake(model, gcnet.inserted(model))
    before = copy.deepcopy(model.state_dict())
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(outputs(folded, x), outputs(model, x)) < 1e-5
        assert relative(outputs(folded, x[:1, :, :48]), outputs(model, x[:1, :, :48])) < 1e-5
    if family in EXPECTED:
        assert (count(folded, FoldedContext), count(folded, FoldedBlock)) == EXPECTED[family]
        assert not any(isinstance(module, ContextBlock) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert record.rewrites(folded)[-1] == {"rewrite": "fold"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(map(str, choice.values())))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_choice_of_block_merges_exactly(choice, size, layout):
    model = Branch(
        ContextBlock(24, reduction=4, **choice) if choice.get("transform") != "linear" else ContextBlock(24, **choice)
    )
    model = model.double().eval().to(memory_format=layout)
    folded = gcnet.fold(model, torch.randn(2, 8, 5, 5).double())
    x = torch.randn(size).double().to(memory_format=layout)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-12
    assert relative(folded(x), model(x)) < 1e-12  # with gradients on, out of place
    assert count(folded, FoldedContext) == 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("block", ["gc", "se"])
def test_maps_of_one_and_three_dimensions(dims, block):
    model = Branch(gcnet.create_block(block, 24, reduction=4), dims=dims).double().eval()
    x = torch.randn(2, 8, *(5, 4, 3)[:dims]).double()
    folded = gcnet.fold(model, x)
    assert count(folded, FoldedContext) == 1
    assert relative(folded(x), model(x)) < 1e-12
    assert relative(folded(x[:1]), model(x[:1])) < 1e-12


@pytest.mark.parametrize("block", [{"pool": "average", "fusion": "scale"}, {"fusion": "both"}, {"fusion": "add"}])
@pytest.mark.parametrize("size", [(1, 3, 9, 9), (1, 3, 2, 2), (4, 3, 9, 9)])
def test_a_block_before_a_1x1_convolution_joins_it(block, size):
    context = ContextBlock(12, reduction=2, **block)
    for parameter in context.parameters():
        nn.init.normal_(parameter)
    layers = (nn.Conv2d(3, 12, 3, padding=1), nn.SiLU(inplace=True), context, nn.Conv2d(12, 5, 1), nn.BatchNorm2d(5))
    model = nn.Sequential(*layers).double().eval()
    folded = gcnet.fold(model)
    assert count(folded, ContextThenConv) == 1
    x = torch.randn(size).double()
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-12


@pytest.mark.parametrize(
    "name", ["seresnet18", "seresnet50", "gcresnext26ts", "efficientnet_b0", "mobilenetv3_small_050"]
)
def test_models_with_foreign_blocks_fold_after_accelerate(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = timm.create_model(name, num_classes=5)
    model = gcnet.accelerate(plain.eval())
    awake(model, {name: m for name, m in model.named_modules() if isinstance(m, ContextBlock)})
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 2e-5
    assert not any(isinstance(module, ContextBlock) for module in folded.modules())
    assert count(folded, FoldedContext) + count(folded, ContextThenConv) + count(folded, FoldedBlock) > 2


@pytest.mark.parametrize("batch", [1, 2])
def test_the_wide_map_is_not_read_for_its_context(batch):
    """The pool sees the narrow map only."""
    model = Branch(gcnet.create_block("gc", 24, reduction=4)).eval()
    folded = gcnet.fold(model)
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (torch.bmm, torch.mv):
                seen.append(max(max(t.shape) if t.ndim else 1 for t in args))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        folded(torch.randn(batch, 8, 3, 3))
    assert seen == [9, 9]  # 8 channels and 9 positions, nowhere 24


def test_a_non_local_block_merges_its_own_norm():
    block = NonLocal(24, norm="batch")
    model = Branch(block).double().eval()
    nn.init.uniform_(block.norm.running_var, 0.5, 2)
    x = torch.randn(2, 8, 4, 4).double()
    folded = gcnet.fold(model, x)
    assert folded[4].norm is None
    assert relative(folded(x), model(x)) < 1e-12


@pytest.mark.parametrize("frozen", ["torchvision", "timm"])
def test_frozen_norms_are_merged(frozen):
    if frozen == "torchvision":
        model = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], 5, norm_layer=FrozenBatchNorm2d)
    else:
        model = freeze_batch_norm_2d(timm.create_model("gcresnext26ts", num_classes=5))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    model.eval()
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    assert not any("BatchNorm" in type(module).__name__ for module in folded.modules())


def test_a_whole_detector_runs_with_its_own_image_size():
    model = gcnet.insert(build("detector"), "gc").eval()
    model.transform.min_size, model.transform.max_size = (64,), 64
    folded = gcnet.fold(model)
    image = [torch.rand(3, 64, 64)]
    with torch.no_grad():
        assert set(folded(image)[0]) == set(model(image)[0])
    assert folded.transform.min_size == (64,)


def test_two_layers_are_merged_only_if_nothing_else_reads_between_them():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.other = nn.Conv2d(4, 4, 1)
            nn.init.uniform_(self.norm.running_var, 2, 3)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + self.other(y)

    model = Two().eval()
    folded = gcnet.fold(model)
    assert isinstance(folded.norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(x), model(x))


def test_a_block_whose_input_is_read_again_does_not_write_into_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.block = nn.Conv2d(3, 8, 3), gcnet.create_block("gc", 8, reduction=2)

        def forward(self, x):
            y = self.conv(x)
            return self.block(y) - y

    model = Twice().eval()
    awake(model, {"block": model.block})
    folded = gcnet.fold(model)
    assert isinstance(folded.block, ContextBlock)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))


def test_layers_that_change_their_weight_on_the_way_stay():
    normed = nn.utils.parametrizations.weight_norm
    pairs = [(normed(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)) for _ in range(8)]
    model = nn.Sequential(*[layer for pair in pairs for layer in pair]).eval()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in gcnet.fold(model)) == 8


def test_a_shared_layer_keeps_its_two_callers():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            nn.init.uniform_(self.norm.running_var, 2, 3)

        def forward(self, x):
            return self.norm(self.conv(self.norm(self.conv(x)).relu()))

    model = Shared().eval()
    folded = gcnet.fold(model, torch.randn(1, 4, 3, 3))
    assert isinstance(folded.norm, nn.Identity)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(folded(x), model(x))


def small_plain() -> nn.Module:
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5, width_per_group=16).eval()


def small() -> nn.Module:
    model = gcnet.insert(small_plain(), "gc")
    awake(model, gcnet.inserted(model))
    return model


def test_a_folded_model_stays_in_eval_mode():
    folded = gcnet.fold(small())
    assert folded.eval() is folded
    with pytest.raises(RewriteError, match=r"train\(True\) on a folded model.*train the model that went into fold"):
        folded.train()
    assert not any(module.training for module in folded.modules())


def modes(model: nn.Module) -> set[bool]:
    return {module.training for module in model.modules()}


class Parent(nn.Module):
    """Holds a model as a LightningModule does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.head = nn.Dropout()
        self.model = model


@pytest.mark.parametrize("hold", [nn.Sequential, Parent, lambda model: nn.Sequential(nn.Sequential(model))])
def test_whatever_holds_a_folded_model_refuses_and_eval_mends_it(hold):
    folded = gcnet.fold(small())
    whole = hold(folded).eval()
    with pytest.raises(RewriteError, match=r"train\(True\) on a folded model.*eval\(\) on what holds it"):
        whole.train()
    assert modes(folded) == {False}
    assert whole.train(False) is whole
    assert modes(whole) == {False}


@pytest.mark.parametrize("name", ["layer1", "layer1.0", "layer2.0.conv3", "layer1.0.bn1", "bn1", "layer4"])
def test_a_part_of_a_folded_model_refuses_before_anything_changes(name):
    folded = gcnet.fold(small())
    for model in (folded, copy.deepcopy(folded), pickle.loads(pickle.dumps(folded)), gcnet.fold(folded)):
        part = model.get_submodule(name)
        with pytest.raises(RewriteError, match="folded model"):
            part.train()
        assert modes(model) == {False}
        assert part.eval() is part
        assert copy.deepcopy(part).train(False).training is False


def test_what_holds_no_merged_layer_trains_and_eval_reaches_it():
    folded = gcnet.fold(small())
    assert folded.fc.train().training
    folded.layer1[0].relu.training = True
    for model in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded)), folded):
        assert modes(model) != {False}
        model.eval()
        assert modes(model) == {False}
    assert folded.fc.training is False


def test_a_frozen_norm_that_could_not_be_merged_keeps_to_its_statistics():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), FrozenBatchNorm2d(8)).eval()
    seen = []
    model[2].register_forward_hook(lambda module, args, kwargs, output: seen.append(kwargs), with_kwargs=True)
    model[2].register_full_backward_hook(lambda *_: seen.append("backward"))
    folded = gcnet.fold(model, torch.rand(2, 3, 4, 4))
    with pytest.raises(RewriteError, match="folded model"):
        folded[2].train()
    seen.clear()
    folded(torch.rand(2, 3, 4, 4, requires_grad=True)).sum().backward()
    assert seen == [{}, "backward"]


def test_the_mode_of_a_class_with_a_train_method_of_its_own_is_set_by_that():
    class Own(nn.Sequential):
        def train(self, mode=True):
            self.told = mode
            return super().train(mode)

    folded = gcnet.fold(Own(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).eval(), torch.rand(2, 3, 4, 4))
    folded.told = None
    folded.eval()
    assert folded.told is False


def test_a_folded_model_survives_copies_and_pickles():
    folded = gcnet.fold(small())
    x = torch.randn(2, 3, 64, 64)
    for again in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded)), gcnet.fold(folded)):
        with torch.no_grad():
            torch.testing.assert_close(again(x), folded(x), rtol=0, atol=0)
        with pytest.raises(RewriteError):
            again.train()
        assert again.eval() is again


def test_a_folded_model_compiles_exports_and_has_no_hidden_state():
    folded = gcnet.fold(small())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = folded(x)
        compiled = torch.compile(folded, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        program = torch.export.export(folded, (x,))
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-5)
    held = {id(t) for t in (*folded.parameters(), *folded.buffers())}
    loose = [value for m in folded.modules() for value in vars(m).values() if isinstance(value, Tensor)]
    assert all(id(value) in held for value in loose)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_exact_as_before(dtype):
    model = Branch(gcnet.create_block("gc", 24, reduction=4)).eval()
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        exact = model.double()(x.double())
        half = model.to(dtype)
        theirs, ours = half(x.to(dtype)), gcnet.fold(half, x.to(dtype))(x.to(dtype))
    assert ours.dtype == dtype
    assert relative(ours, exact) <= 2 * relative(theirs, exact) + torch.finfo(dtype).eps


def test_gradients_reach_the_input_of_a_folded_model():
    model, x = small().double(), torch.randn(1, 3, 64, 64).double().requires_grad_()
    folded = gcnet.fold(model)
    (ours,) = torch.autograd.grad(folded(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(model(x).square().sum(), x)
    assert relative(ours, theirs) < 1e-10


def test_a_norm_in_training_mode_is_refused():
    model = small()
    model.layer2[0].bn2.train()
    with pytest.raises(RewriteError, match=r"the norm 'layer2.0.bn2' is in training mode.*model.eval\(\)"):
        gcnet.fold(model)
    with pytest.raises(RewriteError, match="'1' has no running statistics"):
        gcnet.fold(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval())


def test_tied_weights_are_refused_by_both_names():
    model = small()
    model.layer2[0].conv3.weight = nn.Parameter(torch.randn_like(model.layer2[0].conv3.weight))
    model.extra = nn.Conv2d(32, 64, 1, bias=False)
    model.extra.weight = model.layer2[0].conv3.weight
    with pytest.raises(RewriteError, match=r"'layer2.0.conv3' shares a parameter with 'extra'"):
        gcnet.fold(model)


def test_a_compiled_model_and_a_wrong_example_are_refused():
    with pytest.raises(TypeError, match="compiled"):
        gcnet.fold(torch.compile(small()))
    with pytest.raises(RewriteError, match="example"):
        gcnet.fold(nn.Linear(3, 4))


def test_a_difference_names_the_worst_layer():
    model = small()
    spoilt = copy.deepcopy(model)
    with torch.no_grad():
        spoilt.layer3[0].conv2.weight.mul_(1.1)
    with pytest.raises(RewriteError, match=r"fold changes the outputs by .* the worst layer is 'layer"):
        check_same(model, spoilt, None, "fold")
    check_same(model, copy.deepcopy(model), None, "fold")


def test_the_named_layer_is_the_one_that_was_spoilt():
    model = small()
    spoilt = gcnet.fold(model)
    with torch.no_grad():
        spoilt.layer4[0].conv2.weight.mul_(3)
    with pytest.raises(RewriteError, match=r"the worst layer is 'layer4"):
        check_same(model, spoilt, None, "fold")


@pytest.mark.parametrize("family", ["torchvision Bottleneck", "timm ResNet", "timm ByobNet", "torchvision RegNet"])
def test_blocks_on_the_sum_stay_and_write_into_it(family):
    model = gcnet.insert(build(family), "gc", stages="c5", position="after_add")
    awake(model, gcnet.inserted(model))
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    assert list(gcnet.inserted(folded)) == list(gcnet.inserted(model))


class Output:
    """As some libraries return it: neither a mapping nor a tuple."""

    def __init__(self, feature: Tensor, logits: Tensor) -> None:
        self.feature, self.logits = feature, logits


class TwoOutputs(nn.Module):
    def __init__(self, labels_only: bool = False):
        super().__init__()
        self.labels_only = labels_only
        self.conv, self.block = nn.Conv2d(3, 8, 3), ContextBlock(8, reduction=2)
        awake(self, {"block": self.block})

    def forward(self, x):
        y = self.conv(x)
        logits = self.block(x=y).mean((2, 3))
        return logits.argmax(1) if self.labels_only else Output(y, logits)


def test_outputs_inside_objects_are_seen():
    model = TwoOutputs().eval()
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(folded(x).feature, model(x).feature)
        torch.testing.assert_close(folded(x).logits, model(x).logits)
    with pytest.raises(RewriteError, match="returns no floating-point tensor"):
        gcnet.fold(TwoOutputs(labels_only=True).eval())


class Normalise(nn.Module):
    def forward(self, x):
        return x.sub_(0.5).div_(0.25)


def test_a_model_that_writes_into_its_input_folds_and_the_example_stays():
    model = nn.Sequential(Normalise(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    example = torch.rand(2, 3, 4, 4)
    before = example.clone()
    assert isinstance(gcnet.fold(model, example)[2], nn.Identity)
    assert torch.equal(example, before)
    assert not hasattr(example, "_gcnet_made")


def test_a_block_does_not_write_into_the_models_own_input():
    model = nn.Sequential(nn.ReLU(inplace=True), ContextBlock(8, reduction=2), nn.Conv2d(8, 4, 1)).eval()
    awake(model, {"1": model[1]})
    folded = gcnet.fold(model, torch.randn(1, 8, 5, 5))
    x = torch.randn(1, 8, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), folded(x))


def test_two_blocks_in_a_row_fold():
    model = gcnet.insert(small_plain(), "se", at="layer3.0.bn3", reduction=4)
    model = gcnet.insert(model, "gc", stages="c4")
    awake(model, gcnet.inserted(model))
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    assert count(folded, FoldedContext) == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_a_block_on_a_norm_with_activation_is_called_once(frozen):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 4, 3)).eval()
    nn.init.uniform_(model[1].running_var, 2, 3)
    if frozen:
        model = freeze_batch_norm_2d(model)
    model = gcnet.insert(model, "gc", at="1", reduction=2)
    awake(model, gcnet.inserted(model))
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    assert list(gcnet.inserted(folded)) == ["1.context"]


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.block = nn.Conv2d(3, 8, 1), ContextBlock(8, reduction=2)
        self.blocks = nn.ModuleList([self.block])
        awake(self, {"block": self.block})

    def forward(self, x):
        return self.blocks[0](self.conv(x))


def test_a_block_under_two_names_is_applied_once():
    model = Listed().eval()
    folded = gcnet.fold(model)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_hook_on_what_would_be_merged_is_refused():
    model = small()
    handle = model.layer3[0].bn3.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(RewriteError, match=r"'layer3.0.bn3' carries a hook"):
        gcnet.fold(model)
    handle.remove()
    calls = []
    model.layer3[0].relu.register_forward_hook(lambda module, args, output: calls.append(1))
    folded = gcnet.fold(model)
    calls.clear()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
        before = len(calls)
        folded(torch.randn(1, 3, 64, 64))
    assert before == 3
    assert len(folded.layer3[0].relu._forward_hooks) == 1
    assert type(folded.layer3[0]) is type(model.layer3[0])  # it still calls its ReLU on the sum


def test_transposed_convolutions_are_merged_unless_they_are_grouped():
    up, grouped = nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, groups=2)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), up, nn.BatchNorm2d(4), grouped, nn.BatchNorm2d(4)).eval()
    for norm in (model[2], model[4]):
        nn.init.uniform_(norm.running_var, 2, 3)
    folded = gcnet.fold(model)
    assert isinstance(folded[2], nn.Identity)
    assert isinstance(folded[4], nn.BatchNorm2d)


def test_an_empty_batch_passes():
    model = nn.Sequential(nn.Conv2d(3, 12, 3), ContextBlock(12, reduction=2), nn.Conv2d(12, 5, 1)).eval()
    folded = gcnet.fold(model)
    assert count(folded, ContextThenConv) == 1
    assert folded(torch.zeros(0, 3, 8, 8)).shape == (0, 5, 6, 6)
    assert gcnet.fold(small())(torch.zeros(0, 3, 64, 64)).shape == (0, 5)


def test_dataflow_sees_who_reads_what():
    model = small()
    flow = Dataflow(model, gcnet.inserted(model))
    flow.run(model, (torch.randn(1, 3, 64, 64),))
    assert flow.only_reader("layer2.0.conv3") == "layer2.0.bn3"
    assert flow.only_reader("layer2.0.bn3") == "layer2.0.context"
    assert flow.only_reader("layer2.0.bn1") is None  # a ReLU reads it
    assert flow.owns_input("layer2.0.context")
