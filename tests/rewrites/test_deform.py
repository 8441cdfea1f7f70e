"""`deform`: the identity at the first step, mmcv's outputs and gradients, and what it refuses."""

import copy
import io
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import gcnet
from gcnet.rewrites import RewriteError
from gcnet.surgery.deformable import DeformableConv2d


def small_resnext() -> ResNet:
    model = ResNet(Bottleneck, [1, 2, 1, 1], num_classes=5, groups=4, width_per_group=4)
    return model.eval()


def convs(model: nn.Module) -> dict[str, DeformableConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DeformableConv2d)}


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("deform_groups", [1, 2])
def test_outputs_are_unchanged_at_the_first_step(modulated, deform_groups):
    model = small_resnext()
    result = gcnet.deform(model, stages=("c3", "c5"), modulated=modulated, deform_groups=deform_groups)
    assert list(convs(result)) == ["layer2.0.conv2", "layer2.1.conv2", "layer4.0.conv2"]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(result(x), model(x), rtol=1e-4, atol=1e-5)
    assert not convs(model), "the model that was given is untouched"


def test_existing_names_stay_and_the_offsets_are_new():
    model = small_resnext()
    result = gcnet.deform(model, stages="c5", modulated=True)
    new = set(result.state_dict()) - set(model.state_dict())
    assert new == {"layer4.0.conv2.conv_offset.weight", "layer4.0.conv2.conv_offset.bias"}
    assert set(model.state_dict()) <= set(result.state_dict())


def test_the_published_mask_halves_the_convolution_at_the_start():
    model = gcnet.deform(small_resnext(), stages="c5", modulated=True, mask_gate="sigmoid")
    conv = convs(model)["layer4.0.conv2"]
    x = torch.randn(1, conv.in_channels, 6, 6)
    plain = nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    torch.testing.assert_close(conv(x), plain / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_offsets_and_masks_get_gradients_at_the_first_step(modulated):
    model = gcnet.deform(small_resnext(), stages=("c4", "c5"), modulated=modulated)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    for name, conv in convs(model).items():
        gradient = conv.conv_offset.weight.grad
        assert gradient is not None, name
        assert all(float(part.abs().max()) > 0 for part in gradient.split(9)), name


def test_a_learnt_offset_shifts_what_is_read():
    conv = convs(gcnet.deform(small_resnext(), stages="c3"))["layer2.1.conv2"]
    x = torch.randn(1, conv.in_channels, 8, 8)
    before = conv(x)
    with torch.no_grad():
        conv.conv_offset.bias[0::2] = 1  # every tap one row lower
    torch.testing.assert_close(conv(x)[..., :-2, :], before[..., 1:-1, :], rtol=1e-4, atol=1e-5)


class Given(nn.Module):
    """In the place of conv_offset: these offsets, whatever the map."""

    def __init__(self, offset: torch.Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(offset.clone())

    def forward(self, x):
        return self.offset


@pytest.mark.parametrize("index", range(3))
def test_outputs_and_gradients_are_those_of_mmcv(shared, index):
    case = torch.load(shared / "fixtures/ops/ops.pt", weights_only=True)["deform_conv"][index]
    conv = conv_of(case, modulated=False)
    conv.conv_offset = Given(case["offset"])
    x = case["input"].clone().requires_grad_()
    output = conv(x)
    output.backward(case["cotangent"])
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
    close(output, case["output"])
    close(x.grad, case["grad_input"])
    close(conv.conv_offset.offset.grad, case["grad_offset"])
    close(conv.weight.grad, case["grad_weight"])

    conv = conv_of(case, modulated=True)
    conv.conv_offset = Given(torch.cat([case["offset"], case["mask"].logit()], 1))
    close(conv(x), case["modulated_output"])


def conv_of(case, *, modulated: bool) -> DeformableConv2d:
    channels, size = (case["in_channels"], case["out_channels"]), (3, case["stride"], case["padding"], case["dilation"])
    plain = nn.Conv2d(*channels, *size, case["groups"], bias=modulated)
    with torch.no_grad():
        plain.weight.copy_(case["weight"])
        if plain.bias is not None:
            plain.bias.copy_(case["bias"])
    return DeformableConv2d(plain, modulated, "sigmoid", case["deform_groups"])


def test_the_result_copies_and_pickles():
    model = gcnet.deform(small_resnext(), stages="c5", modulated=True)
    with torch.no_grad():
        for conv in convs(model).values():
            conv.conv_offset.weight.normal_(std=0.1)
    x = torch.randn(1, 3, 64, 64)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), model(x))


def test_blocks_go_in_before_or_after():
    x = torch.randn(1, 3, 64, 64)
    model = small_resnext()
    first = gcnet.insert(gcnet.deform(model, stages="c5"), "gc", stages="c5")
    second = gcnet.deform(gcnet.insert(model, "gc", stages="c5"), stages="c5")
    assert set(first.state_dict()) == set(second.state_dict())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_device_dtype_mode_and_frozen_weights_stay():
    model = small_resnext().double().train()
    model.layer4.requires_grad_(False)
    conv = convs(gcnet.deform(model, stages="c5"))["layer4.0.conv2"]
    assert conv.training
    assert conv.conv_offset.training
    assert conv.conv_offset.weight.dtype == torch.float64
    assert not conv.weight.requires_grad
    assert conv.conv_offset.weight.requires_grad
    with torch.device("meta"):
        model = small_resnext()
    assert all(p.is_meta for p in gcnet.deform(model, stages="c5").parameters())


def test_timm_and_basic_blocks():
    x = torch.randn(1, 3, 64, 64)
    for model in (timm.create_model("resnet26t", num_classes=3).eval(), ResNet(BasicBlock, [1, 1, 1, 1]).eval()):
        result = gcnet.deform(model, stages="c5")
        assert convs(result)
        torch.testing.assert_close(result(x), model(x), rtol=1e-4, atol=1e-5)


def test_profile_counts_the_convolution_and_its_offsets():
    model = small_resnext()
    plain = gcnet.profile(model, (3, 64, 64)).macs
    for modulated, outputs in ((False, 18), (True, 27)):
        found = gcnet.profile(gcnet.deform(model, stages="c5", modulated=modulated), (3, 64, 64)).macs
        channels = model.layer4[0].conv2.in_channels
        assert found - plain == outputs * channels * 9 * 2 * 2


def test_it_is_recorded():
    model = gcnet.deform(small_resnext(), stages=("c4", "c5"), modulated=True, mask_gate="sigmoid")
    assert model.gcnet_rewrites == [
        {
            "rewrite": "deform",
            "stages": ["c4", "c5"],
            "modulated": True,
            "mask_gate": "sigmoid",
            "deform_groups": 1,
        }
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": "c6"}, r"no stage 'c6'; it has c2 \(1 units\), c3 \(2 units\)"),
        ({"stages": ()}, r"stages=\(\) names no stage; this model has c2"),
        ({"stages": "c5", "mask_gate": "tanh", "modulated": True}, "mask_gate='tanh' is unknown; use 'identity'"),
        ({"stages": "c5", "mask_gate": "sigmoid"}, "mask_gate='sigmoid' is for modulated=True"),
        ({"stages": "c5", "deform_groups": 0}, "deform_groups=0: allowed are whole numbers"),
        ({"stages": "c5", "deform_groups": 5}, "deform_groups=5 does not divide the 128 channels of layer4.0.conv2"),
    ],
)
def test_wrong_arguments_name_themselves(options, message):
    with pytest.raises(RewriteError, match=message):
        gcnet.deform(small_resnext(), **options)


def test_what_it_cannot_deform_is_refused_by_name():
    model = small_resnext()
    with pytest.raises(RewriteError, match=r"layer4\.0\.conv2 is deformable already"):
        gcnet.deform(gcnet.deform(model, stages="c5"), stages=("c4", "c5"))
    with pytest.raises(RewriteError, match="MobileNetV2 has no residual units of a ResNet"):
        gcnet.deform(torchvision.models.mobilenet_v2(), stages="c5")
    hooked = small_resnext()
    hooked.layer4[0].conv2.register_forward_hook(lambda *_: None)
    with pytest.raises(RewriteError, match=r"layer4\.0\.conv2 carries hooks"):
        gcnet.deform(hooked, stages="c5")
    reflected = small_resnext()
    reflected.layer4[0].conv2.padding_mode = "reflect"
    with pytest.raises(RewriteError, match=r"layer4\.0\.conv2 is no plain 3x3 convolution"):
        gcnet.deform(reflected, stages="c5")
