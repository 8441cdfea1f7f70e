"""What somebody hangs on a layer of a block takes effect, whichever way the block computes."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

from gcnet.blocks import create_block
from gcnet.rewrites.simplification.one_map import OneMapContext

BLOCKS = {
    **{kind: (kind, {"reduction": 4}) for kind in ("gc", "se", "cbam", "bat")},
    **{kind: (kind, {}) for kind in ("snl", "nl", "ge", "eca", "criss_cross", "dual", "dnl")},
    "context both": ("context", {"reduction": 4, "fusion": "both", "gate": "identity", "activation": "gelu"}),
    "nl gaussian": ("nl", {"pairwise": "gaussian", "norm": "batch"}),
    "nl concatenation": ("nl", {"pairwise": "concatenation", "subsample": "after"}),
    "ge excite": ("ge", {"reduction": 4}),
    "dnl norm": ("dnl", {"norm": "batch"}),
    "ga": ("ga", {"heads": 4}),
    "ga one map": ("ga", {"heads": 4, "terms": "0010"}),
}
ONE_MAPS = [
    ("gaussian", "shared"),
    ("embedded_gaussian", "image"),
    ("dot_product", "shared"),
    ("dot_product", "image"),
    ("concatenation", "shared"),
    ("concatenation", "image"),
    ("disentangled", "shared"),
]
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class LowRank(nn.Module):
    """What LoRA puts in a layer's place: no weight, no in_features of its own."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=torch.float64)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


# Each way hangs something on a layer and returns the weight and the factor of the bias of a layer that does the same.
def by_hook(block, name, layer):
    layer.register_forward_hook(lambda module, args, out: 2 * out)
    return 2 * layer.weight, 2


def by_pre_hook(block, name, layer):
    layer.register_forward_pre_hook(lambda module, args: (2 * args[0],))
    return 2 * layer.weight, 1


def by_own_forward(block, name, layer):
    layer.forward = lambda x: 2 * type(layer).forward(layer, x)
    return 2 * layer.weight, 2


def by_subclass(block, name, layer):
    kind = type(layer)
    layer.__class__ = type("Doubled", (kind,), {"forward": lambda self, x: 2 * kind.forward(self, x)})
    return 2 * layer.weight, 2


def by_pruning(block, name, layer):
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer.weight, 1


def by_spectral_norm(block, name, layer):
    parametrizations.spectral_norm(layer)
    return layer.weight, 1


def by_spectral_norm_hook(block, name, layer):
    nn.utils.spectral_norm(layer).eval()
    block(torch.zeros(1, 16, 7, 7).double())
    return layer.weight, 1


def by_parametrisation(block, name, layer):
    parametrize.register_parametrization(layer, "weight", Twice())
    return layer.weight, 1


def by_low_rank(block, name, layer):
    parent, _, leaf = name.rpartition(".")
    wrapper = LowRank(layer)
    setattr(block.get_submodule(parent), leaf, wrapper)
    return layer.weight + wrapper.up.weight @ wrapper.down.weight, 1


WAYS = {name[3:]: way for name, way in list(globals().items()) if name.startswith("by_")}


def awake(block: nn.Module) -> nn.Module:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block.double().eval()


def answers(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At inference, with gradients, and the gradient of the map."""
    with torch.no_grad():
        plain = block(x)
    leaf = x.clone().requires_grad_()
    out = block(leaf)
    return plain, out, torch.autograd.grad(out.square().sum(), leaf)[0]


def check(block: nn.Module, way: str, x: Tensor) -> None:
    before = block(x)
    names = [name for name, layer in block.named_modules() if type(layer) in LAYERS]
    for name in names:
        hung, weighed = copy.deepcopy(block), copy.deepcopy(block)
        old, new = hung.get_submodule(name), weighed.get_submodule(name)
        if way == "low_rank" and type(old) is not nn.Linear:
            continue
        with torch.no_grad():
            weight, factor = WAYS[way](hung, name, old)
            new.weight.copy_(weight)
            if new.bias is not None:
                new.bias.mul_(factor)
        expected = answers(weighed, x)
        for ours, theirs in zip(answers(hung, x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda text, at=name: f"{at}: {text}")
        assert not torch.allclose(expected[0], before), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BLOCKS)
def test_what_hangs_on_a_layer_takes_effect(name, way):
    kind, options = BLOCKS[name]
    check(awake(create_block(kind, 16, **options)), way, torch.randn(2, 16, 7, 7).double())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("pairwise", "query"), ONE_MAPS)
def test_what_hangs_on_a_layer_of_a_simplified_block_takes_effect(pairwise, query, way):
    block = OneMapContext(16, 5, pairwise=pairwise, query=query, width=4, scale=0.5)
    check(awake(block), way, torch.randn(2, 16, 7, 7).double())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed:UserWarning")
@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "cbam"])  # timm's has a ReLU in place
def test_backward_hooks_see_the_gradient_of_their_layer(name):
    kind, options = BLOCKS[name]
    block, seen = awake(create_block(kind, 16, **options)), []
    layers = {name: layer for name, layer in block.named_modules() if type(layer) in LAYERS}
    for at, layer in layers.items():
        layer.register_full_backward_hook(lambda module, inputs, outputs, at=at: seen.append(at))
    block(torch.randn(2, 16, 7, 7).double().requires_grad_()).sum().backward()
    assert set(seen) == set(layers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in ("cbam", "ge", "ge excite", "eca", "bat")])
def test_dynamic_quantisation_is_close(name):
    from torch.ao.quantization import quantize_dynamic

    kind, options = BLOCKS[name]
    block, x = awake(create_block(kind, 16, **options)).float(), torch.randn(2, 16, 7, 7)
    linear = any(type(layer) is nn.Linear for layer in block.modules())
    with torch.no_grad():
        plain, quantised = block(x), quantize_dynamic(block, {nn.Linear})(x)
    assert not linear or 0 < float((quantised - plain).norm() / (plain - x).norm()) < 0.2


EXCHANGED = {
    "GELU of tanh": ("activation", lambda: nn.GELU("tanh")),
    "another activation": ("activation", nn.Tanh),
    "a norm without gains": ("norm", lambda: nn.LayerNorm(4, elementwise_affine=False)),
    "a norm without a shift": ("norm", lambda: nn.LayerNorm(4, bias=False, dtype=torch.float64)),
    "no norm": ("norm", nn.Identity),
    "a layer for the activation": ("activation", lambda: nn.Linear(4, 4, dtype=torch.float64)),
}


@pytest.mark.parametrize("what", EXCHANGED)
def test_an_exchanged_layer_counts_at_inference_too(what):
    block = awake(create_block("gc", 16, reduction=4, activation="gelu"))
    child, make = EXCHANGED[what]
    setattr(block.add, child, make())
    inference, training, _ = answers(block, torch.randn(2, 16, 3, 5).double())
    torch.testing.assert_close(inference, training, rtol=1e-10, atol=1e-10)


def test_hooks_on_all_modules_see_the_layers():
    block, seen = awake(create_block("gc", 16)), []
    handle = register_module_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    try:
        with torch.no_grad():
            block(torch.randn(1, 16, 3, 3).double())
    finally:
        handle.remove()
    assert seen == ["Linear", "Linear", "LayerNorm", "ReLU", "Linear", "Bottleneck", "GlobalContext"]
