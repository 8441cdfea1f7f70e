"""How maps spread (entropy) and differ (average Jensen-Shannon divergence, over all pairs or some drawn at random).

N sets (heads, windows, images), P maps in each, Q keys; n drawn pairs. Natural logarithm: between 0 and ln 2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.distances.cosine import precise

EXACT_UP_TO = 1024  # maps; all pairs of 1024 maps over 1024 keys take 5e8 logarithms
_AT_ONCE = 1 << 16  # numbers of a block of pairs: what a core's cache holds


class Estimate(NamedTuple):
    """Averages and their standard errors from drawing pairs; the error is 0 where all pairs were taken."""

    value: Tensor
    error: Tensor


def average_jensen_shannon(
    maps: Tensor, *, exact_up_to: int = EXACT_UP_TO, pairs: int = 4096, generator: torch.Generator | None = None
) -> Estimate:
    """Average Jensen-Shannon divergence over all ordered pairs of maps, i = j among them (arXiv 1904.11492, table 1).

    Args:
        maps: distributions along the last dimension.
        exact_up_to: with more maps than that it is an unbiased estimate from pairs drawn at random.
        pairs: how many, for each set alike.
        generator: of the draws; None for torch's own.

    Shape:
        (..., P, Q) -> value and error (...).

    Dtype:
        float64, whatever that of the maps.

    Raises:
        ValueError: maps of a wrong shape, fewer than two pairs.

    Example:
        >>> average_jensen_shannon(torch.eye(2)).value.item()  # ln 2 in half of the pairs
        0.346573...
    """
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise GcnetError(f"maps has shape {tuple(maps.shape)}; expected (..., P, Q) with at least one map and one key")
    sets, (P, Q) = maps.shape[:-2], maps.shape[-2:]
    maps_NPQ = maps.reshape(-1, P, Q)
    if exact_up_to >= P:
        value_N = _exact(precise(maps_NPQ))
        found = Estimate(value_N, torch.zeros_like(value_N))
    else:
        found = sampled_jensen_shannon(lambda index: maps_NPQ[:, index], P, pairs=pairs, generator=generator)
    return Estimate(found.value.reshape(sets), found.error.reshape(sets))


def sampled_jensen_shannon(
    rows: Callable[[Tensor], Tensor], count: int, *, pairs: int = 4096, generator: torch.Generator | None = None
) -> Estimate:
    """Unbiased estimate of the same average from pairs drawn with replacement, for maps that are computed on demand.

    Args:
        rows: indices (n,) of maps -> these maps (N, n, Q).
        count: P, the number of maps.
        pairs: how many pairs i != j are drawn; the same ones in all N sets.
        generator: of the draws (on the CPU); None for torch's own.

    Returns:
        Value (N,) and standard error (N,), float64. The value's mean over draws is the average over all pairs.

    Raises:
        ValueError: fewer than two pairs, or fewer than one map.
    """
    if pairs < 2 or count < 1:
        raise GcnetError(f"pairs={pairs}, count={count}: at least 2 pairs and 1 map are needed")
    if count == 1:
        zero_N = precise(rows(torch.zeros(1, dtype=torch.int64))).sum(dim=(1, 2)) * 0
        return Estimate(zero_N, zero_N.clone())
    first = torch.randint(count, (pairs,), generator=generator)
    second = (first + torch.randint(1, count, (pairs,), generator=generator)) % count
    chosen = zip(first.split(64), second.split(64), strict=True)
    values_Nn = torch.cat([_divergence(precise(rows(i)), precise(rows(j))) for i, j in chosen], dim=1)
    distinct = (count - 1) / count  # the share of ordered pairs with i != j; the others are at 0
    return Estimate(distinct * values_Nn.mean(dim=1), distinct * values_Nn.std(dim=1) / math.sqrt(pairs))


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Of two maps, along the last dimension."""
    middle = (p + q) / 2
    parts = (torch.special.xlogy(p, p) + torch.special.xlogy(q, q)) / 2 - torch.special.xlogy(middle, middle)
    return parts.sum(dim=-1).clamp_min(0)


def _exact(maps_NPQ: Tensor) -> Tensor:
    """All ordered pairs: sum_ij JSD = sum_ij [(h_i + h_j) / 2 - sum_k s/2 ln s/2], s = p_i + p_j, h = sum_k p ln p."""
    N, P, Q = maps_NPQ.shape
    maps_NPQ = maps_NPQ.clamp_min(torch.finfo(maps_NPQ.dtype).tiny)  # x ln x is then 0 for 0 without a case of its own
    own_N = (maps_NPQ * maps_NPQ.log()).sum(dim=(1, 2)) * P
    mass_N = maps_NPQ.sum(dim=(1, 2)) * P * math.log(2)
    both_N = torch.zeros_like(own_N)
    rows = min(P, max(1, _AT_ONCE // (P * Q)))
    columns = max(1, _AT_ONCE // (rows * Q))
    sets = max(1, _AT_ONCE // (rows * min(columns, P) * Q))
    for n in range(0, N, sets):
        part = maps_NPQ[n : n + sets]
        for i in range(0, P, rows):
            these = part[:, i : i + rows, None]
            both_N[n : n + sets] += _sum_of_logarithms(these + part[:, None, i : i + rows])
            for j in range(i + rows, P, columns):  # the pairs of which the mirror image is not among them
                both_N[n : n + sets] += 2 * _sum_of_logarithms(these + part[:, None, j : j + columns])
    return ((own_N + mass_N - both_N / 2) / P**2).clamp_min(0)


def _sum_of_logarithms(s: Tensor) -> Tensor:
    """sum s ln s over all dimensions but the first."""
    return s.log().mul_(s).flatten(1).sum(dim=1)


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
