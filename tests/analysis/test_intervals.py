"""Intervals against scipy and against tables."""

import pytest

from gcnet.analysis.intervals import mean_interval, median_interval, student_quantile


@pytest.mark.parametrize("freedom", [*range(1, 41), 100, 10_000])
def test_the_quantile_is_students(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-5)


def test_the_interval_of_three_seeds_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = [0.80, 0.83, 0.79]
    mean = mean_interval(values)
    assert mean.half_width is not None
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert mean.value - mean.half_width == pytest.approx(low, abs=1e-5)
    assert mean.value + mean.half_width == pytest.approx(high, abs=1e-5)


def test_one_seed_has_no_interval():
    assert mean_interval([0.7]) == (0.7, None, 1)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21)]
)
def test_the_interval_of_a_median_has_the_ranks_of_the_tables(count, low, high):
    values = [float(rank) for rank in range(count, 0, -1)]
    median = median_interval(values)
    assert (median.low, median.high, median.count) == (low, high, count)
    assert median.value == (count + 1) / 2


def test_nothing_to_average_is_an_error():
    with pytest.raises(ValueError, match="values is empty; a mean"):
        mean_interval([])
    with pytest.raises(ValueError, match="values is empty; a median"):
        median_interval([])
    with pytest.raises(ValueError, match="freedom=0 must be at least 1"):
        student_quantile(0)
