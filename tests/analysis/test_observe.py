"""MACs against counts written out by hand; the peak of tensors against sizes written out by hand."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gcnet
from gcnet.analysis.observe import observe
from gcnet.blocks import NonLocal

B, C, D, H, W = 2, 16, 8, 6, 10
P = H * W
X = torch.randn(B, C, H, W)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


LAYERS = 4 * B * P * C * D  # theta, phi, g and W_z
NON_LOCAL = {
    "gaussian": LAYERS // 2 + B * P * P * (C + D),
    "embedded_gaussian": LAYERS + B * P * P * (D + D),
    "dot_product": LAYERS + 2 * B * P * D * D,
    # a and b; per block of 64 keys two sums of 66 rows, then 2 x 64 prefixes of 66 rows; P = 60 is one block
    "concatenation": LAYERS + 2 * B * P * D + B * (2 + 2 * 64) * 66 * D,
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("pairwise", NON_LOCAL)
def test_macs_of_the_non_local_forms(pairwise, device):
    block = NonLocal(C, pairwise=pairwise).to(device)
    assert observe(block, X.to(device)).macs == NON_LOCAL[pairwise]


def test_macs_of_the_context_blocks():
    pool = 2 * B * P * C  # logits and weighted sum
    assert observe(gcnet.create_block("gc", C, reduction=4), X).macs == pool + B * 2 * C * 4
    assert observe(gcnet.create_block("snl", C), X).macs == pool + B * C * C
    assert observe(gcnet.create_block("se", C, reduction=4), X).macs == B * 2 * C * 4


def test_macs_of_our_operators_on_a_gpu():
    """On the meta device they give their shapes alone, which is all that the count needs."""
    x, key, reduce, expand = (torch.empty(s, device="meta") for s in ((B, C, H, W), (C,), (D, C), (3, D)))
    pool = 2 * B * P * C
    attention_pool, transform = torch.ops.gcnet.attention_pool, torch.ops.gcnet.pooled_transform
    assert observe(Apply(lambda x: attention_pool(x, key)), x).macs == pool
    both = Apply(lambda x: transform(x, key, reduce, None, None, None, expand, None, 1e-5, "relu"))
    assert observe(both, x).macs == pool + B * (D * C + 3 * D)
    average = Apply(lambda x: transform(x, None, None, None, None, None, reduce, None, 1e-5, None))
    assert observe(average, x).macs == B * D * C


def test_macs_of_criss_cross_attention():
    def attend(x):
        return gcnet.ops.criss_cross(x[:, :D], x[:, D:], x)

    assert observe(Apply(attend), X).macs == B * P * (H + W) * (D + C)


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * B * C * H * H * W),
        (lambda x: x @ x.transpose(2, 3), B * C * H * H * W),
        (lambda x: x @ torch.ones(W), B * P * C),
        (lambda x: torch.dot(x.flatten(), x.flatten()), B * P * C),
        (lambda x: torch.addmv(torch.ones(H), x[0, 0], torch.ones(W)), P),
        (lambda x: torch.einsum("bchw,dc->bdhw", x, torch.ones(D, C)), B * P * C * D),
        (lambda x: x.relu() + x.softmax(1) * 2 - x.sum(), 0),
    ],
)
def test_macs_of_functions(function, macs):
    assert observe(Apply(function), X).macs == macs


def test_macs_of_convolutions():
    assert observe(nn.Conv2d(C, D, 3, stride=2, padding=1, groups=4), X).macs == B * 3 * 5 * D * 9 * C // 4
    offset = torch.zeros(B, 18, H, W)
    weight = torch.randn(D, C // 2, 3, 3)
    deform = Apply(lambda x: torchvision.ops.deform_conv2d(x, offset, weight, padding=1))
    assert observe(deform, X).macs == B * P * D * 9 * C // 2


def test_the_count_of_resnet50_is_the_published_one():
    with torch.device("meta"):
        model = torchvision.models.resnet50()
        macs = observe(model, torch.empty(1, 3, 224, 224)).macs
    assert macs == 4_089_184_256
    published = torchvision.models.ResNet50_Weights.DEFAULT.meta["_ops"]
    assert round(macs / 1e9, 2) == round(published, 2)


def test_every_mac_is_noted_at_the_innermost_module():
    inner = nn.Sequential(nn.Conv2d(C, D, 1), nn.ReLU())
    model = nn.Sequential(inner, Apply(lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2)), nn.Linear(D, 3))
    noted = [event for event in observe(model, X).events if event[1]]
    assert noted == [("0.0", B * P * C * D), ("1", B * D * P * D), ("2", B * D * D * 3)]


def test_products_of_a_parent_after_its_child_stay_with_the_parent():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = nn.Linear(W, W, bias=False)

        def forward(self, x):
            x = x @ torch.ones(W, 3)
            return self.child(x @ torch.ones(3, W)) @ torch.ones(W, 5)

    rows = B * C * H
    assert [e for e in observe(Parent(), X).events if e[1]] == [
        ("", rows * W * 3 * 2),
        ("child", rows * W * W),
        ("", rows * W * 5),
    ]


SIZE = X.numel() * X.element_size()


@pytest.mark.parametrize(
    ("model", "peak"),
    [
        (nn.Identity(), 0),
        (nn.ReLU(inplace=True), 0),
        (nn.ReLU(), SIZE),
        (nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), 2 * SIZE),  # input and output of one layer
        (nn.Sequential(nn.ReLU(), nn.ReLU(inplace=True), nn.Flatten()), SIZE),
        (Apply(lambda x: (x.relu(), x.tanh(), x.abs())), 3 * SIZE),
        (Apply(lambda x: torch.cat([x, x, x])), 3 * SIZE),
    ],
)
def test_the_peak_counts_tensors_while_they_live(model, peak):
    assert observe(model, X.clone()).peak_bytes == peak


def test_views_of_weights_and_inputs_take_nothing():
    model = Apply(lambda x: (model.layer.weight.t(), x.transpose(1, 2), x[0]))
    model.layer = nn.Linear(W, W).requires_grad_(False)
    assert observe(model, X).peak_bytes == 0


def test_the_peak_shows_the_p_by_p_matrix_where_there_is_one():
    theta, phi, g = torch.randn(3, 1, 2048, 4)
    matrix = 2048 * 2048 * 4

    def run(attend):
        return observe(Apply(lambda x: attend(theta, phi, g, pairwise="dot_product")), X).peak_bytes

    assert run(gcnet.ops.nonlocal_attend_reference) >= matrix
    assert run(gcnet.ops.nonlocal_attend) <= matrix / 50


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C).eval(), nn.Dropout()).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    observe(model, X)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_fails_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError):
        observe(model, X)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
