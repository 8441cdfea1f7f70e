"""The non-local blocks of timm and mmcv as `NonLocal`."""

from typing import Any

from torch import nn

from gcnet.blocks import NonLocal
from gcnet.surgery.foreign.layers import CannotConvertError, batch_norm, filled, pointwise, reduction


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
