"""Means with 95 % intervals (Student's t), of few seeds or streamed; those of a median stand beside the clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gcnet.distributed import from_all
from gcnet.errors import GcnetError
from gcnet.surgery.timing import Median as Median
from gcnet.surgery.timing import median_interval as median_interval

# Two-sided 97.5 % quantiles of Student's t for 1, 2, ... 30 degrees of freedom.
_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


class Mean(NamedTuple):
    """A mean with half the width of its 95 % interval; None where one value, or none, cannot tell."""

    value: float
    half_width: float | None
    count: int


def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: the factor of the standard error in a 95 % interval.

    Example:
        >>> round(student_quantile(2), 3), round(student_quantile(1000), 3)
        (4.303, 1.962)
    """
    if freedom < 1:
        raise GcnetError(f"freedom={freedom} must be at least 1")
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)  # Cornish-Fisher expansion; its error is below 1e-5 from 30 on
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / freedom**power for power, term in enumerate(terms))


def mean_interval(values: Sequence[float]) -> Mean:
    """Mean of independent values with its 95 % interval by Student's t; one value has no interval.

    Example:
        >>> mean_interval([0.9, 1.0, 1.1])
        Mean(value=1.0, half_width=0.2484..., count=3)
    """
    if not values:
        raise GcnetError("values is empty; a mean needs at least one value")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Mean(mean, None, 1)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Mean(mean, student_quantile(len(values) - 1) * error, len(values))


class Moments:
    """Count, mean and sum of squared deviations of the finite values under each key, by Chan's pairwise update.

    The state is one matrix with a row for each key seen. `compute` first gathers the rows of all processes, each of
    which must call it, also one without any data.

    Args:
        device: where the state lives; one that has float64.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.rows = torch.empty(0, 4, dtype=torch.float64, device=device)

    def update(self, keys: Tensor, values: Tensor) -> None:
        """Add values.

        Args:
            keys: (n,) whole numbers below 2^53, those of the values.
            values: (n,); NaN and infinite ones are left out.
        """
        finite = values.isfinite()
        values = values[finite]
        new = torch.stack([keys[finite].to(values), torch.ones_like(values), values, torch.zeros_like(values)], dim=1)
        self.rows = _merged(torch.cat([self.rows, new.to(self.rows)]))

    def compute(self) -> dict[int, tuple[int, float, float]]:
        """Key -> count, mean, sum of squared deviations from the mean, over all processes."""
        merged = _merged(torch.cat(from_all(self.rows.cpu())))
        return {int(key): (int(count), mean, square) for key, count, mean, square in merged.tolist()}


def _merged(rows: Tensor) -> Tensor:
    """Rows (key, count, mean, square) with one row for each key."""
    keys, place = rows[:, 0].unique(return_inverse=True)
    _, count, mean, square = rows.unbind(dim=1)
    zeros = torch.zeros_like(keys)
    counts = zeros.index_add(0, place, count)
    means = zeros.index_add(0, place, count * mean) / counts
    squares = zeros.index_add(0, place, square + count * (mean - means[place]).square())
    return torch.stack([keys, counts, means, squares], dim=1)
