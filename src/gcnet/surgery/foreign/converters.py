"""One function per foreign block: global context and squeeze-and-excitation as `ContextBlock`, others as `NonLocal`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gcnet.blocks import ContextBlock, NonLocal
from gcnet.surgery.foreign.layers import (
    CannotConvertError,
    batch_norm,
    bottleneck,
    filled,
    gate,
    pointwise,
    reduction,
)


def timm_global_context(block: Any) -> nn.Module:
    """timm.layers.GlobalContext."""
    branches = {"scale": block.mlp_scale, "add": block.mlp_add}
    branches = {ours: mlp for ours, mlp in branches.items() if mlp is not None}
    if not branches:
        raise CannotConvertError("it neither scales nor adds")
    if any(mlp.drop.p > 0 for mlp in branches.values()):
        raise CannotConvertError("it has dropout")
    parts = {ours: (f"mlp_{ours}.fc1", f"mlp_{ours}.norm", f"mlp_{ours}.act", f"mlp_{ours}.fc2") for ours in branches}
    key = None if block.conv_attn is None else "conv_attn"
    return _context(block, key, parts, gate(block.gate) if "scale" in branches else "sigmoid")


def mmcv_context(block: Any) -> nn.Module:
    """mmcv.cnn.ContextBlock."""
    branches = {"scale": "channel_mul_conv", "add": "channel_add_conv"}
    branches = {ours: name for ours, name in branches.items() if getattr(block, name) is not None}
    parts = {ours: (f"{name}.0", f"{name}.1", f"{name}.2", f"{name}.3") for ours, name in branches.items()}
    return _context(block, "conv_mask" if block.pooling_type == "att" else None, parts, "sigmoid")


def timm_se(block: Any) -> nn.Module:
    """timm.layers.SEModule."""
    if block.add_maxpool:
        raise CannotConvertError("it adds the maximum to the mean (add_maxpool)")
    return _context(block, None, {"scale": ("fc1", "bn", "act", "fc2")}, gate(block.gate))


def timm_squeeze_excite(block: Any) -> nn.Module:
    """The SqueezeExcite of timm's EfficientNet, MobileNetV3 and relatives."""
    return _context(block, None, {"scale": ("conv_reduce", "", "act1", "conv_expand")}, gate(block.gate))


def timm_effective_se(block: Any) -> nn.Module:
    """timm.layers.EffectiveSEModule: one layer with a bias, which the linear transform does not have."""
    raise CannotConvertError("its single layer has a bias, the linear transform of ours has none")


def torchvision_se(block: Any) -> nn.Module:
    """torchvision.ops.SqueezeExcitation."""
    if type(block.avgpool) is not nn.AdaptiveAvgPool2d or block.avgpool.output_size not in (1, (1, 1)):
        raise CannotConvertError(f"its pool is {block.avgpool}")
    return _context(block, None, {"scale": ("fc1", "", "activation", "fc2")}, gate(block.scale_activation))


def _context(theirs: Any, key: str | None, parts: Mapping[str, tuple[str, str, str, str]], gate_name: str) -> nn.Module:
    """Build ours from the names of the layers that compute the attention and those of each branch.

    Args:
        theirs: The foreign block.
        key: Its layer of the attention logits; None for one that averages.
        parts: For "scale" and "add" the names of reduce, norm ("" for none), activation and expand.
        gate_name: Our name of its gate.
    """
    options: dict[str, Any] = {}
    layers: dict[str, str] = {}
    for ours, (reduce, norm, activation, expand) in parts.items():
        found = bottleneck(
            theirs.get_submodule(reduce),
            theirs.get_submodule(norm) if norm else nn.Identity(),
            theirs.get_submodule(activation),
            theirs.get_submodule(expand),
        )
        if options and found != options:
            raise CannotConvertError("its two branches differ in width, norm, activation or biases")
        options = found
        layers |= {f"{ours}.reduce": reduce, f"{ours}.expand": expand}
        if found["norm"]:
            layers[f"{ours}.norm"] = norm
    if key is not None:
        pointwise(theirs.get_submodule(key))
        layers["key"] = key
    options |= {"fusion": "both" if len(parts) == 2 else next(iter(parts)), "gate": gate_name}
    first = theirs.get_submodule(next(iter(parts.values()))[0])
    block = ContextBlock(
        first.in_channels,
        pool="average" if key is None else "attention",
        device="meta",
        **options,
    )
    return filled(block, theirs, layers)


def timm_nonlocal(block: Any) -> nn.Module:
    """timm.layers.NonLocalAttn; its scale is that of all channels, though the product runs over the reduced ones."""
    for layer in (block.t, block.p, block.g, block.z):
        pointwise(layer)
    batch_norm(block.norm)
    channels = block.z.out_channels
    ours = NonLocal(
        channels,
        reduction=reduction(channels, block.z.in_channels),
        scale=block.scale,
        norm="batch",
        device="meta",
    )
    return filled(ours, block, {"theta": "t", "phi": "p", "g": "g", "out": "z", "norm": "norm"})


def mmcv_nonlocal(block: Any) -> nn.Module:
    """mmcv.cnn.NonLocal1d, 2d, 3d; `use_scale` acts on the embedded Gaussian alone."""
    inner = ".0" if block.sub_sample else ""
    embedded = block.mode != "gaussian"
    layers = {"g": f"g{inner}", "out": "conv_out"}
    if embedded:
        layers |= {"theta": "theta", "phi": f"phi{inner}"}
    for ours, name in layers.items():
        _check_module(block.get_submodule(name), norm=ours == "out")
    layers = {ours: f"{name}.conv" for ours, name in layers.items()}
    tensors = {"concat_weight": "concat_project.conv.weight"} if block.mode == "concatenation" else {}
    if tensors:
        pointwise(block.concat_project.conv)
    norm_name = block.conv_out.norm_name
    if norm_name:
        batch_norm(block.conv_out.norm)
        layers["norm"] = f"conv_out.{norm_name}"
    scaled = block.mode == "embedded_gaussian" and block.use_scale
    ours = NonLocal(
        block.in_channels,
        pairwise=block.mode,
        reduction=reduction(block.in_channels, block.inter_channels),
        scale=block.inter_channels**-0.5 if scaled else 1.0,
        subsample="after" if block.sub_sample else False,
        norm="batch" if norm_name else None,
        device="meta",
    )
    return filled(ours, block, layers, **tensors)


def _check_module(module: Any, norm: bool) -> None:
    """Check that a ConvModule of mmcv is a 1x1 convolution and, if norm, perhaps a norm behind it."""
    pointwise(module.conv)
    order = module.order.index("conv") < module.order.index("norm")
    if module.with_activation or not order or (module.norm_name and not norm):
        raise CannotConvertError("one of its layers has a norm or an activation where ours has none")
