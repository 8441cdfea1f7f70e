"""Blocks of other libraries, and the block of ours that computes the same with the same weights.

| foreign class | ours | left as it is |
|---|---|---|
| timm GlobalContext | ContextBlock | no branch; an unknown activation or gate |
| timm SEModule, SqueezeExcite | ContextBlock | add_maxpool; a batch norm inside; an unknown activation or gate |
| timm EffectiveSEModule | | always: its layer has a bias |
| timm NonLocalAttn | NonLocal | inner channels that are no channels // reduction; another norm |
| torchvision SqueezeExcitation | ContextBlock | an unknown activation or gate |
| mmcv ContextBlock | ContextBlock | |
| mmcv NonLocal1d, 2d, 3d | NonLocal | a norm other than batch norm |

Classes are recognised by module and name: none of the three libraries is imported.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from gcnet.surgery.foreign import converters
from gcnet.surgery.foreign.layers import CannotConvertError as CannotConvertError
from gcnet.surgery.labels import derives, label

CONVERTERS: dict[str, Callable[[Any], nn.Module]] = {
    "timm.layers.global_context.GlobalContext": converters.timm_global_context,
    "timm.layers.squeeze_excite.SEModule": converters.timm_se,
    "timm.models._efficientnet_blocks.SqueezeExcite": converters.timm_squeeze_excite,
    "timm.layers.squeeze_excite.EffectiveSEModule": converters.timm_effective_se,
    "timm.layers.non_local_attn.NonLocalAttn": converters.timm_nonlocal,
    "torchvision.ops.misc.SqueezeExcitation": converters.torchvision_se,
    "mmcv.cnn.bricks.context_block.ContextBlock": converters.mmcv_context,
    "mmcv.cnn.bricks.non_local.NonLocal1d": converters.mmcv_nonlocal,
    "mmcv.cnn.bricks.non_local.NonLocal2d": converters.mmcv_nonlocal,
    "mmcv.cnn.bricks.non_local.NonLocal3d": converters.mmcv_nonlocal,
}


def is_foreign(module: nn.Module) -> bool:
    """Whether a module is one of the known foreign blocks, or of a class derived from one."""
    return derives(module, CONVERTERS)


def convert(block: nn.Module) -> nn.Module:
    """Our block with the values, dtype, device, mode and frozen parameters of a foreign one.

    Raises:
        CannotConvertError: ours cannot compute exactly the same, or what it computes is not known.
    """
    convert_it = CONVERTERS.get(label(type(block)))
    if convert_it is None:
        known = next(kind for kind in type(block).__mro__ if label(kind) in CONVERTERS)
        raise CannotConvertError(f"it is a subclass of {known.__name__}, which may compute something else")
    if any("forward" in vars(module) for module in block.modules()):
        raise CannotConvertError("its forward was replaced on the instance")
    return convert_it(block)
