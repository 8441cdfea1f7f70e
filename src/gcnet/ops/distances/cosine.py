"""Average cosine distance in closed form. P vectors of C channels, any leading dimensions."""

import torch
from torch import Tensor

from gcnet.errors import GcnetError


def precise(x: Tensor) -> Tensor:
    """In float64, or in float32 where the device has no float64."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def unit_vectors(v: Tensor) -> Tensor:
    """v / |v| along the last dimension in float64; a zero vector stays zero."""
    v = precise(v)
    v = v / _or_one(v.abs().amax(dim=-1, keepdim=True))  # squares of 1e-200 would underflow
    return v / _or_one(v.norm(dim=-1, keepdim=True))


def average_cosine_distance(v: Tensor) -> Tensor:
    """mean_ij (1 - cos(v_i, v_j)) / 2 = (1 - |mean_i u_i|^2) / 2 with unit vectors u_i (arXiv 1904.11492, section 3.2).

    All ordered pairs, i = j among them; a zero vector has cosine 0, also with itself. O(P C) instead of O(P^2 C).

    Args:
        v: P vectors.

    Shape:
        (..., P, C) -> (...).

    Dtype:
        float64, whatever that of v.

    Raises:
        ValueError: v has fewer than two dimensions, no vector or no channel.

    Example:
        >>> average_cosine_distance(torch.eye(4)).item()  # 12 of 16 pairs are at a right angle: distance 1/2
        0.375
    """
    if v.ndim < 2 or 0 in v.shape[-2:]:
        raise GcnetError(f"v has shape {tuple(v.shape)}; expected (..., P, C) with at least one vector and one channel")
    return cosine_distance_of_mean(unit_vectors(v).mean(dim=-2))


def cosine_distance_of_mean(mean: Tensor) -> Tensor:
    """The average distance from the mean of the unit vectors, (..., C) -> (...)."""
    return ((1 - mean.square().sum(dim=-1)) / 2).clamp_min(0)


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)
