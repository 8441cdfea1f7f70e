"""Shape checks that several ops and blocks share; each error names the argument, its shape and what is allowed."""

from torch import Tensor

from gcnet.errors import GcnetError


def check_map(x: Tensor, channels: int | None = None, dims: tuple[int, ...] = (1, 2, 3), *, name: str = "x") -> None:
    """Raise ValueError unless x is a floating-point (B, C, *spatial) map with at least one position.

    Args:
        x: The tensor to look at.
        channels: The number of channels it must have; None allows any.
        dims: The allowed numbers of spatial dimensions.
        name: The argument's name in the error.
    """
    spatial = x.ndim - 2
    if spatial not in dims:
        allowed = " or ".join("(" + ", ".join(["B", "C", *"DHW"[3 - d :]]) + ")" for d in dims)
        raise GcnetError(f"{name} has shape {tuple(x.shape)}; expected {allowed}")
    if channels is not None and x.shape[1] != channels:
        raise GcnetError(f"{name} has shape {tuple(x.shape)}, so {x.shape[1]} channels; expected {channels}")
    if not x.is_floating_point():
        raise GcnetError(f"{name} has dtype {x.dtype}; expected a floating-point dtype (call .float() on it)")
    if 0 in x.shape[2:]:
        raise GcnetError(f"{name} has shape {tuple(x.shape)}, which holds no position; every spatial size must be >= 1")


def check_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...], why: str) -> None:
    """Raise ValueError unless a tensor that is given has this shape; `why` ends the message."""
    if tensor is not None and tuple(tensor.shape) != shape:
        raise GcnetError(f"{name} has shape {tuple(tensor.shape)}; expected {shape}{why}")
