"""Backbones for detectors: torchvision's ResNets and other nets, timm's, and the feature pyramid on top.

Maps are called by their strides: C2 (4), C3 (8), C4 (16), C5 (32).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import gcd
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from gcnet.errors import GcnetError

NormLayer = Callable[[int], nn.Module]
STRIDES = (4, 8, 16, 32)


def _group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 32 channels, or of fewer where these do not divide by 32."""
    return nn.GroupNorm(gcd(32, channels), channels)


NORMS: dict[str, NormLayer] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "sync": nn.SyncBatchNorm,
    "group": _group_norm,
}


class Shape(NamedTuple):
    """A ResNet: its unit, units per stage, groups, channels per group in C2, and channels of the stem."""

    unit: type[resnet.BasicBlock | resnet.Bottleneck]
    layers: list[int]
    groups: int = 1
    group_width: int = 64
    base_channels: int = 64


RESNETS: dict[str, Shape] = {
    "resnet18": Shape(resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": Shape(resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": Shape(resnet.Bottleneck, [3, 4, 6, 3]),
    "resnet101": Shape(resnet.Bottleneck, [3, 4, 23, 3]),
    "resnet152": Shape(resnet.Bottleneck, [3, 8, 36, 3]),
    "resnext50_32x4d": Shape(resnet.Bottleneck, [3, 4, 6, 3], 32, 4),
    "resnext101_32x4d": Shape(resnet.Bottleneck, [3, 4, 23, 3], 32, 4),
    "resnext101_32x8d": Shape(resnet.Bottleneck, [3, 4, 23, 3], 32, 8),
    "resnext101_64x4d": Shape(resnet.Bottleneck, [3, 4, 23, 3], 64, 4),
    "wide_resnet50_2": Shape(resnet.Bottleneck, [3, 4, 6, 3], 1, 128),
    "wide_resnet101_2": Shape(resnet.Bottleneck, [3, 4, 23, 3], 1, 128),
}


class Trunk(resnet.ResNet):
    """torchvision's ResNet with `base_channels` in place of 64, from the stem through all stages."""

    def __init__(self, shape: Shape, norm: NormLayer) -> None:
        self.base_channels = shape.base_channels
        width = shape.group_width * 64 // shape.base_channels  # torchvision's unit: at 64 base channels
        super().__init__(shape.unit, shape.layers, groups=shape.groups, width_per_group=width, norm_layer=norm)

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64 and self.base_channels != 64:  # the first stage: the stem was made just now
            self.inplanes = self.base_channels
            self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = self._norm_layer(self.inplanes)
        return super()._make_layer(block, planes * self.base_channels // 64, blocks, stride, dilate)


class Body(NamedTuple):
    """A net that puts out maps, which of them are C2 to C5, their channels, and its children up to each of them."""

    module: nn.Module
    picks: list[int]
    channels: list[int]
    ends: list[str]


class Backbone(nn.Module):
    """A net with maps (`body`) and a feature pyramid on them (`fpn`).

    Args:
        body: the net.
        first: the first map that the pyramid uses: 0 for C2, 1 for C3.
        out_channels: of all levels of the pyramid.
        extra: what makes the levels above C5.
        norm: norm of the pyramid's convolutions; None for a bias instead.
        frozen_stages: None, 0 (the stem) to 4 (the stem and C2 to C5): weights fixed, norms in evaluation mode.
        fixed_statistics: batch norms of the body stay in evaluation mode; their weights are trained.
    """

    def __init__(
        self,
        body: Body,
        *,
        first: int,
        out_channels: int,
        extra: ExtraFPNBlock,
        norm: NormLayer | None,
        frozen_stages: int | None,
        fixed_statistics: bool,
    ) -> None:
        super().__init__()
        self.body = body.module
        self.fpn = FeaturePyramidNetwork(body.channels[first:], out_channels, extra, norm)
        self.out_channels = out_channels
        self.first = first
        self.fixed_statistics = fixed_statistics
        self._picks = body.picks
        self.frozen_children = _frozen(body, frozen_stages)
        for name in self.frozen_children:
            self.body.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def maps(self, images: Tensor) -> list[Tensor]:
        """C2 to C5 of images (B, 3, H, W)."""
        out = self.body(images)
        found = list(out.values()) if isinstance(out, dict) else list(out)
        return [found[i] for i in self._picks]

    def pyramid(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The levels of the pyramid from C2 to C5, by name: "0", "1", ..., then those above."""
        return self.fpn({str(i): level for i, level in enumerate(maps[self.first :])})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid(self.maps(images))

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for name in self.frozen_children:
            self.body.get_submodule(name).eval()
        if self.fixed_statistics:
            for module in self.body.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def build_body(name: str, norm: str, shape: Shape | None) -> Body:
    """The net of that name: a ResNet of that shape, `timm/NAME`, or another of torchvision."""
    if shape is not None:
        trunk = Trunk(shape, NORMS[norm])
        layers = [f"layer{i}" for i in (1, 2, 3, 4)]
        widths = [shape.base_channels * 2**i * shape.unit.expansion for i in range(4)]
        body = IntermediateLayerGetter(trunk, {layer: str(i) for i, layer in enumerate(layers)})
        return Body(body, [0, 1, 2, 3], widths, layers)
    if norm == "group":
        raise GcnetError(f"norm='group' is for torchvision's ResNets; {name} comes with norms of its own: use 'batch'")
    body = _timm(name.removeprefix("timm/")) if name.startswith("timm/") else _features(name)
    convert = {"batch": lambda m: m, "frozen": freeze_batch_norm_2d, "sync": convert_sync_batchnorm}[norm]
    return body._replace(module=convert(body.module))


def _timm(name: str) -> Body:
    if not timm.is_model(name):
        raise GcnetError(f"name: timm knows no backbone {name!r}; timm.list_models() has them all")
    try:
        net: Any = timm.create_model(name, features_only=True, pretrained=False)
        strides, channels = net.feature_info.reduction(), net.feature_info.channels()
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise GcnetError(f"name: timm's {name} gives no feature maps ({error}); choose a convolutional net") from error
    ends = list(getattr(net, "return_layers", {}))
    return _chosen(f"timm/{name}", net, strides, channels, ends)


def _features(name: str) -> Body:
    """Another classifier of torchvision whose trunk is the Sequential `features`, cut where the stride grows."""
    known = name in torchvision.models.list_models(module=torchvision.models)
    net = torchvision.models.get_model(name, weights=None) if known else None
    trunk = getattr(net, "features", None)
    if type(trunk) is not nn.Sequential:
        raise GcnetError(
            f"name: {name!r} is no backbone; use one of {', '.join(RESNETS)}, a net of torchvision with `features` "
            "(convnext_tiny, efficientnet_b0, mobilenet_v3_large, ...), or timm/NAME"
        )
    x = torch.zeros(1, 3, 128, 128, device="meta")
    strides, channels, ends = [], [], []
    for child, module in copy.deepcopy(trunk).to("meta").eval().named_children():
        x = module(x)
        strides.append(128 // x.shape[-1])
        channels.append(x.shape[1])
        ends.append(child)
    body = _chosen(name, trunk, strides, channels, ends)
    getter = IntermediateLayerGetter(trunk, {end: str(i) for i, end in enumerate(body.ends)})
    return body._replace(module=getter, picks=[0, 1, 2, 3])


def _chosen(name: str, net: nn.Module, strides: Sequence[int], channels: Sequence[int], ends: Sequence[str]) -> Body:
    """The last map of each stride."""
    last = {stride: i for i, stride in enumerate(strides)}
    if not set(STRIDES) <= set(last):
        raise GcnetError(
            f"name: {name} has maps of strides {sorted(last)}; a pyramid needs those of strides {list(STRIDES)}"
        )
    picks = [last[stride] for stride in STRIDES]
    return Body(net, picks, [channels[i] for i in picks], [ends[i] for i in picks] if ends else [])


def _frozen(body: Body, stages: int | None) -> list[str]:
    """The children of the body that belong to the frozen stages."""
    if stages is None:
        return []
    children = [name for name, _ in body.module.named_children()]
    if not set(body.ends) <= set(children) or not body.ends:
        raise GcnetError(f"frozen_stages={stages}: where the stages of this backbone end is not known; use None")
    end = children.index(body.ends[max(stages, 1) - 1])
    return children[: end + 1] if stages else children[:end]
