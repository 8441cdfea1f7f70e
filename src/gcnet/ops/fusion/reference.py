"""The definition of the epilogue, step by step, in float32 or wider."""

from torch import Tensor

from gcnet.ops.precision import accumulate_dtype


def fuse_reference(
    x: Tensor,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """[relu](x * scale + shift + residual), scale and shift one number per image and channel."""
    wide = accumulate_dtype(x)
    over_map = (..., *[None] * (x.ndim - 2))
    out = x.to(wide)
    if scale is not None:
        out = out * scale.to(wide)[over_map]
    if shift is not None:
        out = out + shift.to(wide)[over_map]
    if residual is not None:
        out = out + residual.to(wide)
    return (out.relu() if relu else out).to(x.dtype)
