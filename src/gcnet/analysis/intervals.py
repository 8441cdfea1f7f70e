"""95 % intervals of a mean over few seeds (Student's t); those of a median stand beside the clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

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
