"""The calibration of the verdict on trials whose truth is written down."""

import pytest

from thresholds import Score, Thresholds, Trial, calibrate, leave_one_seed_out, score


def trials(values, used, *, half=0.0, seeds=5):
    return [Trial(v, v - half, v + half, used, i % seeds) for i, v in enumerate(values)]


def test_the_middle_third_of_a_gap_is_left_undecided():
    found = calibrate(trials([0.01, 0.03, 0.06], False) + trials([0.36, 0.4, 0.5], True))
    assert found.separated
    assert (found.independent_below, found.dependent_above) == (pytest.approx(0.16), pytest.approx(0.26))


def test_all_of_an_overlap_is_left_undecided():
    found = calibrate(trials([0.01, 0.02, 0.3], False) + trials([0.2, 0.4, 0.5], True))
    assert found == Thresholds(0.2, 0.3, separated=False)


def test_one_in_twenty_of_either_kind_may_lie_on_the_wrong_side():
    free, need = [0.01 * i for i in range(1, 20)], [0.3 + 0.01 * i for i in range(19)]
    clean = calibrate(trials(free, False) + trials(need, True))
    spoilt = calibrate(trials([*free, 0.5], False) + trials([*need, 0.0], True))
    assert spoilt == clean
    twice = calibrate(trials([*free[:-1], 0.45, 0.5], False) + trials(need, True))
    assert not twice.separated
    assert twice.dependent_above == 0.45


def test_how_many_trials_of_each_kind_there_are_does_not_move_the_thresholds():
    free, need = trials([0.05, 0.06], False), trials([0.4, 0.42], True)
    assert calibrate(free + need) == calibrate(free * 9 + need)


def test_a_trial_is_judged_by_its_interval_as_the_verdict_does():
    thresholds = Thresholds(0.1, 0.2, separated=True)
    judged = [thresholds.judge(trial) for trial in trials([0.05, 0.09, 0.15, 0.21, 0.3], True, half=0.02)]
    assert judged == [False, None, None, None, True]


def test_right_wrong_and_undecided_are_counted():
    thresholds = Thresholds(0.1, 0.2, separated=True)
    given = trials([0.05, 0.15, 0.3], False) + trials([0.05, 0.3, 0.4], True)
    assert score(given, thresholds) == Score(right=3, wrong=2, undecided=1)


def test_a_seed_is_judged_by_the_thresholds_of_the_others():
    free = [Trial(0.02, 0.02, 0.02, False, seed) for seed in range(4)]
    need = [Trial(0.4, 0.4, 0.4, True, seed) for seed in range(4)]
    assert leave_one_seed_out(free + need) == Score(8, 0, 0)
    odd = [Trial(0.45, 0.45, 0.45, False, 4), Trial(0.4, 0.4, 0.4, True, 4)]
    assert leave_one_seed_out(free + need + odd) == Score(right=5, wrong=1, undecided=4)


def test_both_kinds_of_trials_are_asked_for():
    with pytest.raises(ValueError, match="0 without and 2 with use"):
        calibrate(trials([0.1, 0.2], True))
