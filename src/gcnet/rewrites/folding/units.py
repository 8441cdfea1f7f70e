"""Residual units whose last layer, a folded one, takes the shortcut and the ReLU along.

The same parameters under the same names as the unit they replace; `fold` puts them in where nothing but the addition
and a ReLU is left behind the last convolution. One pass over the wide map on a GPU; on the CPU the gate of an SE block
and the addition are one pass.
"""

from typing import Any

from timm.models import resnet as timm_resnet
from torch import Tensor, nn

from gcnet.rewrites.folding.layers import FoldedBlock, FoldedContext, join
from gcnet.surgery import units as torchvision_resnet
from gcnet.surgery.places import has_hooks


class FoldedBottleneck(torchvision_resnet.Bottleneck):
    """torchvision's Bottleneck after folding."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.narrow_map(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        return finish(self.conv3, self.context, h, shortcut)


class FoldedBasicBlock(torchvision_resnet.BasicBlock):
    """torchvision's BasicBlock after folding."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return finish(self.conv2, self.context, h, shortcut)


class FoldedTimmBottleneck(timm_resnet.Bottleneck):
    """timm's ResNet Bottleneck after folding."""

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.act1(self.bn1(self.conv1(x)))
        h = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(h)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return finish(self.conv3, self.se, h, shortcut)


class FoldedTimmBasicBlock(timm_resnet.BasicBlock):
    """timm's ResNet BasicBlock after folding."""

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return finish(self.conv2, self.se, h, shortcut)


def finish(last: nn.Module, block: nn.Module | None, h: Tensor, shortcut: Tensor) -> Tensor:
    """relu(block(last(h)) + shortcut)."""
    if isinstance(last, FoldedContext):
        return last(h, shortcut, relu=True)
    y = last(h)
    if isinstance(block, FoldedBlock):
        return block(y, shortcut, relu=True)
    return join(y, None, None, shortcut, relu=True)


def join_shortcut(unit: Any) -> None:
    """Give a folded unit the forward pass that joins its shortcut, if nothing stands in the way."""
    if type(unit) in torchvision_resnet.WITH_SLOTS:
        torchvision_resnet.make_slots(unit)
    if type(unit) not in JOINED:
        return
    last = "3" if hasattr(unit, "conv3") else "2"
    if hasattr(unit, "drop_path"):  # timm's
        block, between, act = unit.se, unit.drop_path, getattr(unit, f"act{last}")
    else:
        block, between, act = unit.context, unit.context_sum, unit.relu
    alone = _is_nothing(getattr(unit, f"bn{last}")) and _is_nothing(between) and type(act) is nn.ReLU
    alone = alone and (_is_nothing(block) or type(block) is FoldedBlock)
    if alone and not any(
        layer is not None and has_hooks(layer) for layer in (getattr(unit, f"conv{last}"), block, act)
    ):
        unit.__class__ = JOINED[type(unit)]


def _is_nothing(module: nn.Module | None) -> bool:
    return module is None or (
        type(module) is nn.Identity and not module._forward_hooks and not module._forward_pre_hooks
    )


JOINED: dict[type[nn.Module], type[nn.Module]] = {
    torchvision_resnet.Bottleneck: FoldedBottleneck,
    torchvision_resnet.BasicBlock: FoldedBasicBlock,
    timm_resnet.Bottleneck: FoldedTimmBottleneck,
    timm_resnet.BasicBlock: FoldedTimmBasicBlock,
}
