"""`accelerate`: a model that holds blocks of timm, torchvision or mmcv in, the same model on our blocks out."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from gcnet.blocks import ContextBlock, NonLocal
from gcnet.errors import RewriteError, some
from gcnet.surgery import record
from gcnet.surgery.eager import check_model
from gcnet.surgery.foreign import CONVERTERS, CannotConvertError, convert, is_foreign
from gcnet.surgery.places import HOOKS, parameter_holders, replace


def accelerate(model: nn.Module) -> nn.Module:
    """Return a copy of the model in which known foreign blocks are ours, with the same weights and the same outputs.

    Known are timm's GlobalContext, SEModule, SqueezeExcite (EfficientNet, MobileNetV3) and NonLocalAttn, torchvision's
    SqueezeExcitation, mmcv's ContextBlock and NonLocal1d, 2d, 3d. Each is replaced at its own name by a `ContextBlock`
    or a `NonLocal`; inside it the parameters have our names, everywhere else names do not change. So load weights into
    the model first, accelerate it, then build the optimiser.

    A block that ours cannot express exactly stays as it is (a subclass too, since it may compute something else). The
    record on the result says which were replaced and why others were kept: `result.gcnet_rewrites[-1]`.

    Args:
        model: Any eager model, in any mode, or such a block itself.

    Returns:
        A new model with the same devices, dtypes, modes and frozen parameters. A model in which nothing is left to
        replace but that holds blocks of ours is returned as a copy.

    Raises:
        RewriteError: there is nothing to replace, or somebody's hook is registered on a block to be replaced.
        TypeError: the model is compiled, scripted or wrapped.

    Example:
        >>> import timm
        >>> model = accelerate(timm.create_model("seresnet18"))
        >>> model.layer1[0].se
        ContextBlock(
          64, pool=average, fusion=scale, gate=sigmoid
          (scale): Bottleneck(
            (reduce): Linear(in_features=64, out_features=8, bias=True)
            (activation): ReLU()
            (expand): Linear(in_features=8, out_features=64, bias=True)
          )
        )
    """
    check_model(model)
    result = copy.deepcopy(model)
    found = {name: block for name, block in result.named_modules(remove_duplicate=False) if is_foreign(block)}
    ours: dict[nn.Module, nn.Module] = {}
    kept: dict[str, str] = {}
    tied = {key for key, names in parameter_holders(result).items() if len(names) > 1}
    for name, block in found.items():
        try:
            if any(id(parameter) in tied for parameter in block.parameters()):
                raise CannotConvertError("it shares a parameter with another module")
            ours[block] = convert(block)
        except CannotConvertError as reason:
            kept[name] = f"{type(block).__name__}: {reason}"
            continue
        _refuse_hooks(name, block)
    replaced = [name for name, block in found.items() if block in ours]
    if not replaced:
        return _unchanged(result, kept)
    for block, own in ours.items():
        record.carry(block, own)
    result = replace(result, ours)
    record.add_rewrite(result, {"rewrite": "accelerate", "replaced": replaced, "kept": kept})
    return result


def replay(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Do an `accelerate` on record again: which blocks are foreign does not depend on their weights."""
    return accelerate(model)


def _refuse_hooks(name: str, block: nn.Module) -> None:
    for inner, module in block.named_modules(prefix=name):
        kinds = [kind for kind in HOOKS if getattr(module, kind)]
        if kinds:
            raise RewriteError(
                f"model: {inner or 'the model itself'} ({type(module).__name__}) has hooks ({', '.join(kinds)}), which "
                "would be lost with it; remove them, accelerate, and register them on the result"
            )


def _unchanged(model: nn.Module, kept: dict[str, str]) -> nn.Module:
    accelerated = any(rewrite.get("rewrite") == "accelerate" for rewrite in record.rewrites(model))
    if accelerated or any(isinstance(module, ContextBlock | NonLocal) for module in model.modules()):
        return model
    if kept:
        reasons = some((f"{name or 'the model itself'} ({reason})" for name, reason in kept.items()), 4)
        raise RewriteError(f"model: none of its foreign blocks can be expressed exactly by ours: {reasons}")
    raise RewriteError(
        f"model: this {type(model).__name__} holds no block that accelerate knows; it looks for {', '.join(CONVERTERS)}"
    )
