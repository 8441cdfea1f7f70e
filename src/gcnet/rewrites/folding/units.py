"""Residual units whose last layer, a folded one, takes the shortcut and the ReLU along.

The same parameters under the same names as the unit they replace; `fold` puts them in where nothing but the addition
and a ReLU is left behind the last convolution. One pass over the wide map on a GPU; on the CPU the gate of an SE block
and the addition are one pass.
"""

from typing import Any

from timm.models import resnet as timm_resnet
from torch import Tensor, nn

from gcnet.rewrites.folding.layers import FoldedBlock, FoldedContext, Merged, join
from gcnet.rewrites.folding.norms import MergedNorm
from gcnet.surgery import units as torchvision_resnet
from gcnet.surgery.places import has_hooks, replace


class FoldedBottleneck(Merged, torchvision_resnet.Bottleneck):
    """torchvision's Bottleneck after folding."""

    def forward(self, x: Tensor) -> Tensor:
        return _finish(self, self.conv3, self.context, self.narrow_map(x), x)


class FoldedBasicBlock(Merged, torchvision_resnet.BasicBlock):
    """torchvision's BasicBlock after folding."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        return _finish(self, self.conv2, self.context, h, x)


class FoldedTimmBottleneck(Merged, timm_resnet.Bottleneck):
    """timm's ResNet Bottleneck after folding."""

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.act1(self.bn1(self.conv1(x)))
        h = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(h)))))
        return _finish(self, self.conv3, self.se, h, x)


class FoldedTimmBasicBlock(Merged, timm_resnet.BasicBlock):
    """timm's ResNet BasicBlock after folding."""

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        return _finish(self, self.conv2, self.se, h, x)


def _finish(unit: Any, last: nn.Module, block: nn.Module | None, h: Tensor, x: Tensor) -> Tensor:
    """relu(block(last(h)) + the shortcut of x)."""
    shortcut = x if unit.downsample is None else unit.downsample(x)
    if isinstance(last, FoldedContext):
        return last(h, shortcut, relu=True)
    y = last(h)
    if isinstance(block, FoldedBlock):
        return block(y, shortcut, relu=True)
    return join(y, None, None, shortcut, relu=True)


def join_shortcuts(model: nn.Module) -> nn.Module:
    """The model with units that join their shortcut, wherever nothing stands in the way."""
    model = torchvision_resnet.with_slots(model, [name for name, _ in model.named_modules()])
    units = [unit for unit in model.modules() if type(unit) in JOINED and _ends_in_its_addition(unit)]
    return replace(model, {unit: torchvision_resnet.remade(unit, JOINED[type(unit)]) for unit in units})


def _ends_in_its_addition(unit: Any) -> bool:
    """Whether behind the last convolution there is at most a folded block, then the addition and a ReLU, unwatched."""
    last = "3" if hasattr(unit, "conv3") else "2"
    if hasattr(unit, "drop_path"):  # timm's
        block, between, act = unit.se, unit.drop_path, getattr(unit, f"act{last}")
    else:
        block, between, act = unit.context, unit.context_sum, unit.relu
    return (
        _is_nothing(getattr(unit, f"bn{last}"))
        and _is_nothing(between)
        and type(act) is nn.ReLU
        and (_is_nothing(block) or type(block) is FoldedBlock)
        and not any(layer is not None and has_hooks(layer) for layer in (getattr(unit, f"conv{last}"), block, act))
    )


def _is_nothing(module: nn.Module | None) -> bool:
    return module is None or (type(module) in (nn.Identity, MergedNorm) and not has_hooks(module))


JOINED: dict[type[nn.Module], type[nn.Module]] = {
    torchvision_resnet.Bottleneck: FoldedBottleneck,
    torchvision_resnet.BasicBlock: FoldedBasicBlock,
    timm_resnet.Bottleneck: FoldedTimmBottleneck,
    timm_resnet.BasicBlock: FoldedTimmBasicBlock,
}
