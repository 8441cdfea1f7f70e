"""Average pooling over all positions: the context modelling of SENet (arXiv 1709.01507, eq. 2)."""

from torch import Tensor

from gcnet.ops.checks import check_map
from gcnet.ops.precision import accumulate_dtype


def average_pool(x: Tensor) -> Tensor:
    """Mean over all positions of a feature map, summed in float32 or wider (arXiv 1709.01507, eq. 2).

    Args:
        x: Feature map with one, two or three spatial dimensions, floating point.

    Shape:
        x (B, C, *spatial) -> context (B, C), in the dtype of x.

    Raises:
        ValueError: x has no spatial dimension or no position.

    Example:
        >>> import torch
        >>> average_pool(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """
    check_map(x)
    return x.flatten(2).mean(2, dtype=accumulate_dtype(x)).to(x.dtype)
