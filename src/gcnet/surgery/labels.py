"""Classes of other libraries by module and name: torchvision and timm take seconds to import, mmcv may not be there.

Who has a module of such a class has imported its library, so asking by label costs nothing and needs no import.
"""

from collections.abc import Container

from torch import nn

FROZEN_NORM = "torchvision.ops.misc.FrozenBatchNorm2d"
FROZEN_NORM_ACT = "timm.layers.norm_act.FrozenBatchNormAct2d"
DEFORMABLE = "torchvision.ops.deform_conv.DeformConv2d"


def label(kind: type) -> str:
    """Module and name of a class.

    Example:
        >>> label(nn.Conv2d)
        'torch.nn.modules.conv.Conv2d'
    """
    return f"{kind.__module__}.{kind.__qualname__}"


def derives(module: nn.Module, labels: Container[str]) -> bool:
    """Whether the class of a module, or one it is derived from, is among these."""
    return any(label(kind) in labels for kind in type(module).__mro__)
