"""torchvision's two residual units with room for a context block inside the branch, at its end and on the sum.

torchvision offers no place between the last norm and the addition. A unit of exactly its class gives way to one of
these classes (same parameters, same names, same values), with slots that start empty. The norms stay as they are, so
`SyncBatchNorm.convert_sync_batchnorm` and the like can still replace them. In training with a frozen last norm, the
usual recipe for detectors, a Bottleneck takes the context from its narrow map (see `narrow`).

| slot | where |
|---|---|
| `context_before_3x3`, `context_after_3x3` | in a Bottleneck: behind the ReLU of the first, of the second convolution |
| `context` | at the end of the branch |
| `context_sum` | on the sum, before its ReLU |
"""

from collections.abc import Iterable
from types import MethodType

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from gcnet.surgery import narrow
from gcnet.surgery.places import replace, through


class BasicBlock(resnet.BasicBlock):
    """torchvision's BasicBlock with the slots `context` and `context_sum`."""

    context: nn.Module | None
    context_sum: nn.Module | None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return _join(self, x, out if self.context is None else through(self.context, out))


class Bottleneck(resnet.Bottleneck):
    """torchvision's Bottleneck with four slots."""

    context_before_3x3: nn.Module | None
    context_after_3x3: nn.Module | None
    context: nn.Module | None
    context_sum: nn.Module | None

    def narrow_map(self, x: Tensor) -> Tensor:
        """What the last convolution reads."""
        out = self.relu(self.bn1(self.conv1(x)))
        if self.context_before_3x3 is not None:
            out = through(self.context_before_3x3, out)
        out = self.relu(self.bn2(self.conv2(out)))
        return out if self.context_after_3x3 is None else through(self.context_after_3x3, out)

    def forward(self, x: Tensor) -> Tensor:
        out = self.narrow_map(x)
        if (
            self.training
            and torch.is_grad_enabled()
            and narrow.applies(self.conv3, self.bn3, self.context)
            and narrow.pays(out)
        ):
            return _join(self, x, narrow.context_from_narrow_map(self.conv3, self.bn3, self.context, out))
        out = self.bn3(self.conv3(out))
        return _join(self, x, out if self.context is None else through(self.context, out))


def _join(unit: BasicBlock | Bottleneck, x: Tensor, out: Tensor) -> Tensor:
    out += x if unit.downsample is None else unit.downsample(x)
    if unit.context_sum is not None:
        out = through(unit.context_sum, out)
    return unit.relu(out)


SLOTS: dict[type[nn.Module], tuple[str, ...]] = {
    BasicBlock: ("context", "context_sum"),
    Bottleneck: ("context_before_3x3", "context_after_3x3", "context", "context_sum"),
}
WITH_SLOTS: dict[type[nn.Module], type[BasicBlock | Bottleneck]] = {
    resnet.BasicBlock: BasicBlock,
    resnet.Bottleneck: Bottleneck,
}


def with_slots(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """The model with room in the named units; those that have it, or that are not torchvision's, stay as they are."""
    new: dict[nn.Module, nn.Module] = {}
    for unit in map(model.get_submodule, names):
        if type(unit) in WITH_SLOTS:
            new[unit] = remade(unit, WITH_SLOTS[type(unit)])
            for slot in SLOTS[WITH_SLOTS[type(unit)]]:
                new[unit].register_module(slot, None)
    return replace(model, new)


def remade(unit: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A new unit of another class with all that the old one has: layers, hooks, mode, what users have set.

    The old one is given up; a method of its own that somebody put on it is bound to the new one.
    """
    new = kind.__new__(kind)  # no constructor: layers would be built only to be thrown away
    for name, value in vars(unit).items():
        own = isinstance(value, MethodType) and value.__self__ is unit
        vars(new)[name] = MethodType(value.__func__, new) if own else value
    return new
