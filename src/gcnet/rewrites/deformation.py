"""`deform`: 3x3 convolutions of chosen stages become deformable (DCN v1, arXiv 1703.06211; v2, arXiv 1811.11168)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from torch import nn

from gcnet.errors import RewriteError, whole
from gcnet.surgery import families, record
from gcnet.surgery.eager import check_model
from gcnet.surgery.labels import DEFORMABLE, derives, label
from gcnet.surgery.places import has_hooks


def deform(
    model: nn.Module,
    *,
    stages: str | Sequence[str],
    modulated: bool = False,
    mask_gate: Literal["identity", "sigmoid"] = "identity",
    deform_groups: int = 1,
) -> nn.Module:
    """Return a copy of a ResNet whose 3x3 convolutions sample where a small convolution, starting at zero, tells them.

    In every residual unit of the stages `conv2` becomes a `torchvision.ops.DeformConv2d` with the same weight and a
    child `conv_offset`. Outputs are the same at the first step, up to rounding. Existing names do not change.

    Args:
        model: ResNet, ResNeXt or Wide ResNet of torchvision or timm, or a detector on one.
        stages: Names of stages, "c2" to "c5" (layer1 to layer4); the published models take c3, c4 and c5.
        modulated: False for v1 (offsets only); True for v2 (each sample also has a weight, the mask).
        mask_gate: What makes the mask of v2 from its logits: "identity" is 2 sigmoid, which starts at one; "sigmoid" is
            the published one, which halves the convolution at the start: for published weights.
        deform_groups: In how many groups of input channels the offsets differ.

    Returns:
        A new model on the same device, in the same dtype, memory format and mode.

    Raises:
        RewriteError: the arguments do not fit the model, or a convolution cannot be made deformable; the model is
            untouched.
        TypeError: a model that is compiled, scripted or wrapped.

    Example:
        >>> import torchvision
        >>> model = deform(torchvision.models.resnet18(), stages=("c5",), modulated=True)
        >>> model.layer4[0].conv2.conv_offset.out_channels
        27
    """
    from gcnet.surgery.deformable import DeformableConv2d  # here, since it imports torchvision

    check_model(model)
    if mask_gate not in ("identity", "sigmoid"):
        raise RewriteError(f"mask_gate={mask_gate!r} is unknown; use 'identity' (2 sigmoid) or 'sigmoid' (published)")
    if mask_gate != "identity" and not modulated:
        raise RewriteError(f"mask_gate={mask_gate!r} is for modulated=True: without modulation there is no mask")
    whole("deform_groups", deform_groups, kind=RewriteError)
    chosen = (stages,) if isinstance(stages, str) else tuple(stages)
    result = copy.deepcopy(model)
    for unit in _units(result, chosen):
        conv = _plain_conv(unit, deform_groups)
        unit.module.conv2 = DeformableConv2d(conv, modulated, mask_gate, deform_groups).train(unit.module.training)
    options = {"modulated": modulated, "mask_gate": mask_gate, "deform_groups": deform_groups}
    record.add_rewrite(result, {"rewrite": "deform", "stages": list(chosen), **options})
    return result


def replay(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Do a `deform` on record again."""
    return deform(model, **{key: value for key, value in rewrite.items() if key != "rewrite"})


def _units(model: nn.Module, chosen: tuple[str, ...]) -> list[families.Unit]:
    found = families.find_stages(model)
    known = {
        stage: [unit for unit in units if label(type(unit.module)) in families.RESNET_UNITS]
        for stage, units in found.items()
    }
    if not any(known.values()):
        raise RewriteError(
            f"{type(model).__name__} has no residual units of a ResNet; deform takes ResNet, ResNeXt and Wide ResNet "
            "of torchvision or timm"
        )
    listed = ", ".join(f"{stage} ({len(units)} units)" for stage, units in known.items() if units)
    if not chosen:
        raise RewriteError(f"stages=() names no stage; this model has {listed}")
    for stage in chosen:
        if not known.get(stage):
            raise RewriteError(f"stages: the model has no stage {stage!r}; it has {listed}")
    return [unit for stage in dict.fromkeys(chosen) for unit in known[stage]]


def _plain_conv(unit: families.Unit, deform_groups: int) -> nn.Conv2d:
    conv = cast(nn.Module, unit.module.conv2)
    name = f"{unit.name}.conv2"
    if derives(conv, (DEFORMABLE,)):
        raise RewriteError(f"{name} is deformable already; name stages without it, or deform the plain model")
    if type(conv) is not nn.Conv2d or conv.kernel_size != (3, 3) or conv.padding_mode != "zeros":
        raise RewriteError(f"{name} is no plain 3x3 convolution padded with zeros ({conv}); choose other stages")
    if isinstance(conv.padding, str):
        raise RewriteError(f"{name} has padding={conv.padding!r}; deform needs numbers")
    if has_hooks(conv):
        raise RewriteError(f"{name} carries hooks or a block, which would be lost; deform first, then add them")
    if conv.in_channels % deform_groups:
        raise RewriteError(f"deform_groups={deform_groups} does not divide the {conv.in_channels} channels of {name}")
    return conv
