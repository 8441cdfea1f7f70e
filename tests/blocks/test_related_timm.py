"""CBAM, GE, ECA and BAT: at gamma = 1 they are timm's modules, and what the papers define."""

import math

import pytest
import torch
from timm.layers import BatNonLocalAttn, EcaModule
from timm.layers import GatherExcite as TimmGatherExcite
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from gcnet.blocks.from_timm import BilinearAttention, Cbam, EfficientChannelAttention
from gcnet.blocks.gated import Gated
from gcnet.blocks.gather_excite import GatherExcite


def opened(block: Gated) -> Gated:
    """The block in float64 and eval mode with gamma = 1 and batch norms that have seen something."""
    for module in block.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    nn.init.ones_(block.gamma)
    return block


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "size"),
    [
        (Cbam(32), CbamModule(32), (7, 5)),
        (Cbam(32, reduction=4, kernel_size=3), CbamModule(32, rd_ratio=1 / 4, spatial_kernel_size=3), (7, 5)),
        (EfficientChannelAttention(32), EcaModule(32), (7, 5)),
        (EfficientChannelAttention(32, kernel_size=7), EcaModule(kernel_size=7), (7, 5)),
        (BilinearAttention(32), BatNonLocalAttn(32), (14, 7)),
        (
            BilinearAttention(64, reduction=2, block_size=3, groups=4),
            BatNonLocalAttn(64, rd_ratio=1 / 2, block_size=3, groups=4),
            (3, 9),
        ),
    ],
)
def test_gamma_one_is_timms_module_in_values_and_gradients(ours, theirs, size):
    opened(ours)
    theirs.double().eval().load_state_dict(ours.block.state_dict())
    x = torch.randn(2, ours.channels, *size, dtype=torch.float64, requires_grad=True)
    close(ours(x), theirs(x))
    seed = torch.randn_like(x)
    inputs = (x, *ours.block.parameters())
    for mine, reference in zip(
        torch.autograd.grad(ours(x), inputs, seed),
        torch.autograd.grad(theirs(x), (x, *theirs.parameters()), seed),
        strict=True,
    ):
        close(mine, reference)


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("size", [(7, 5), (8, 8), (1, 1)])
def test_gather_excite_without_parameters_is_timms(extent, size):
    ours = opened(GatherExcite(6, extent=extent, learned=False))
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    close(ours(x), TimmGatherExcite(6, extent=extent, use_mlp=False)(x))


def conv_by_loops(x: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise 3x3 convolution, stride 2, one row of zeros around: every output cell from its nine inputs."""
    B, C, H, W = x.shape
    y = x.new_zeros(B, C, math.ceil(H / 2), math.ceil(W / 2))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    h, w = 2 * i + di, 2 * j + dj
                    if 0 <= h < H and 0 <= w < W:
                        y[:, :, i, j] += weight[:, 0, di + 1, dj + 1] * x[:, :, h, w]
    return y


def norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return x * scale[:, None, None] + (bn.bias - scale * bn.running_mean)[:, None, None]


@torch.no_grad()
@pytest.mark.parametrize("reduction", [None, 2])
def test_learned_gather_excite_is_that_of_the_paper(reduction):
    block = opened(GatherExcite(6, extent=4, reduction=reduction))
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    first, bn_first, _, second, bn_second = block.block.gather
    cells = norm(conv_by_loops(x, first.weight), bn_first).relu()
    cells = norm(conv_by_loops(cells, second.weight), bn_second)
    assert cells.shape == (2, 6, 2, 2)
    if reduction is not None:
        wide, _, narrow = block.block.excite
        cells = torch.einsum("hc,bcij->bhij", wide.weight[:, :, 0, 0], cells) + wide.bias[:, None, None]
        cells = torch.einsum("ch,bhij->bcij", narrow.weight[:, :, 0, 0], cells.relu()) + narrow.bias[:, None, None]
    expected = torch.empty_like(x)
    for h in range(7):
        for w in range(5):
            expected[:, :, h, w] = x[:, :, h, w] * cells[:, :, h * 2 // 7, w * 2 // 5].sigmoid()
    close(block(x), expected)


@torch.no_grad()
def test_eca_is_that_of_the_paper():
    block = opened(EfficientChannelAttention(8))
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    taps, mean = block.block.conv.weight[0, 0], x.mean(dim=(2, 3))
    assert len(taps) == 3
    for c in range(8):
        near = [(t, c + t - 1) for t in range(3) if 0 <= c + t - 1 < 8]
        gate = sum(taps[t] * mean[:, d] for t, d in near).sigmoid()
        close(block(x)[:, c], gate[:, None, None] * x[:, c])


@torch.no_grad()
def test_cbam_gates_channels_first_and_positions_second():
    block = opened(Cbam(8, reduction=2, kernel_size=1))
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    first, second = (layer.weight[:, :, 0, 0] for layer in (block.block.channel.fc1, block.block.channel.fc2))
    logits = sum((pooled @ first.T).relu() @ second.T for pooled in (x.mean((2, 3)), x.amax((2, 3))))
    y = x * logits.sigmoid()[:, :, None, None]
    weight, bn = block.block.spatial.conv.conv.weight[0, :, 0, 0], block.block.spatial.conv.bn
    spatial = norm((weight[0] * y.mean(1) + weight[1] * y.amax(1))[:, None], bn)
    close(block(x), y * spatial.sigmoid())


@pytest.mark.parametrize(("channels", "taps"), [(16, 3), (64, 3), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_ecas_kernel_grows_with_the_channels(channels, taps):
    assert sum(p.numel() for p in EfficientChannelAttention(channels).parameters()) == taps + 1


@pytest.mark.parametrize("size", [(7, 8), (13, 7), (5, 5)])
def test_bat_names_the_sizes_it_takes(size):
    with pytest.raises(
        ValueError, match=rf"{size[0]}, {size[1]}\); height and width must be multiples of block_size=7"
    ):
        BilinearAttention(32)(torch.randn(1, 32, *size))


def test_bat_takes_any_size_that_its_block_size_divides():
    block = opened(BilinearAttention(32, block_size=1))
    for size in [(1, 1), (13, 7)]:
        assert torch.isfinite(block(torch.randn(2, 32, *size, dtype=torch.float64))).all()
