"""torchvision's two residual units with room for a context block at the end of the branch and on the sum.

torchvision offers no place between the last norm and the addition. A unit of exactly its class becomes one of these
classes (same parameters, same names, same values), with two slots that start empty. The norms stay as they are, so
`SyncBatchNorm.convert_sync_batchnorm` and the like can still replace them. In training with a frozen last norm, the
usual recipe for detectors, a Bottleneck takes the context from its narrow map (see `narrow`).
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from gcnet.rewrites import narrow


class BasicBlock(resnet.BasicBlock):
    """torchvision's BasicBlock with the slots `context` (end of the branch) and `context_sum` (before the ReLU)."""

    context: nn.Module | None
    context_sum: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return _join(self, x, out if self.context is None else self.context(out))


class Bottleneck(resnet.Bottleneck):
    """torchvision's Bottleneck with the slots `context` (end of the branch) and `context_sum` (before the ReLU)."""

    context: nn.Module | None
    context_sum: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        if (
            self.training
            and torch.is_grad_enabled()
            and narrow.applies(self.conv3, self.bn3, self.context)
            and narrow.pays(out)
        ):
            return _join(self, x, narrow.context_from_narrow_map(self.conv3, self.bn3, self.context, out))
        out = self.bn3(self.conv3(out))
        return _join(self, x, out if self.context is None else self.context(out))


def _join(unit: BasicBlock | Bottleneck, x: Tensor, out: Tensor) -> Tensor:
    out += x if unit.downsample is None else unit.downsample(x)
    if unit.context_sum is not None:
        out = unit.context_sum(out)
    return unit.relu(out)


WITH_SLOTS: dict[type[nn.Module], type[BasicBlock | Bottleneck]] = {
    resnet.BasicBlock: BasicBlock,
    resnet.Bottleneck: Bottleneck,
}


def make_slots(unit: nn.Module) -> None:
    """Turn a torchvision unit into the one with slots; nothing happens to one that has them."""
    if type(unit) in WITH_SLOTS:
        unit.__class__ = WITH_SLOTS[type(unit)]
        unit.register_module("context", None)
        unit.register_module("context_sum", None)
