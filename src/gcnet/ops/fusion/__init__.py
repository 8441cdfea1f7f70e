"""The epilogue of a residual branch: scale, shift, residual and ReLU on a map."""

import torch
from torch import Tensor

from gcnet.ops.checks import check_map, check_shape
from gcnet.ops.fusion import kernels
from gcnet.ops.fusion.reference import fuse_reference as fuse_reference


def fuse(
    x: Tensor,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """[relu](x * scale + shift + residual), the fusion step of GCNet (arXiv 1904.11492, fig. 4) with what follows it.

    No argument is ever modified. With nothing but x given, the result is x itself.

    Args:
        x: Feature map with one, two or three spatial dimensions.
        scale: Factor per image and channel; None for none.
        shift: Summand per image and channel; None for none.
        residual: Summand of the shape of x; None for none.
        relu: Whether a ReLU comes last.

    Shape:
        x (B, C, *spatial), scale (B, C), shift (B, C), residual (B, C, *spatial) -> (B, C, *spatial).

    Dtype:
        That of x, whatever the others have.

    Raises:
        ValueError: x is no map with positions, or another argument does not fit it.

    Example:
        >>> import torch
        >>> fuse(torch.ones(1, 2, 1, 2), shift=torch.tensor([[1.0, -3.0]]), relu=True)
        tensor([[[[2., 2.]],
        <BLANKLINE>
                 [[0., 0.]]]])
    """
    check_map(x)
    for name, per_channel in (("scale", scale), ("shift", shift)):
        check_shape(name, per_channel, tuple(x.shape[:2]), ", one number per image and channel of x")
    check_shape("residual", residual, tuple(x.shape), ", the shape of x")
    if kernels.available(x) and not (scale is None and shift is None and residual is None and not relu):
        return kernels.fuse_op(x, scale, shift, residual, relu)
    return _fuse_plain(x, scale, shift, residual, relu)


def _fuse_plain(x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    """One pass out of place, the others in place on its result: no backward reads what they overwrite."""
    over_map = (..., *[None] * (x.ndim - 2))
    scale = None if scale is None else scale.to(x.dtype)[over_map]
    shift = None if shift is None else shift.to(x.dtype)[over_map]
    residual = None if residual is None else residual.to(x.dtype)
    out = x
    if scale is not None and residual is not None and residual.stride() == x.stride():  # else residual's layout
        out, residual = torch.addcmul(residual, x, scale), None
    elif scale is not None and shift is not None:
        out, shift = torch.addcmul(shift, x, scale), None
    elif scale is not None:
        out = x * scale
    for summand in (shift, residual):
        if summand is not None:
            out = x + summand if out is x else out.add_(summand)
    if relu:
        out = x.relu() if out is x else out.relu_()
    return out
