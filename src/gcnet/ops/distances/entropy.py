"""Over how many positions a map spreads. P maps over Q keys, any leading dimensions."""

import torch
from torch import Tensor

from gcnet.ops.distances.cosine import precise


def entropy(maps: Tensor) -> Tensor:
    """-sum_k p_k ln p_k of distributions along the last dimension, in nats; 0 ln 0 = 0.

    Shape:
        (..., Q) -> (...), float64.

    Example:
        >>> round(entropy(torch.full((4,), 0.25)).item(), 4)  # ln 4
        1.3863
    """
    maps = precise(maps)
    return -torch.special.xlogy(maps, maps).sum(dim=-1)


def effective_positions(maps: Tensor) -> Tensor:
    """exp(entropy): how many positions a uniform map of the same entropy would cover; 1 for a one-hot map, Q at most.

    Shape:
        (..., Q) -> (...), float64.

    Example:
        >>> effective_positions(torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])).tolist()
        [1.0, 2.0]
    """
    return entropy(maps).exp()
