"""Means, paired differences and the words for them, on numbers written out by hand."""

from pathlib import Path

import pytest

from gcnet.analysis.comparison import Comparison, Cost, Failure, Result, findings, make_rows, run_table
from gcnet.analysis.intervals import Median
from gcnet.report.texts import to_csv
from gcnet.scenes.conclusions import conclusions, meaning
from gcnet.surgery.timing import Timing
from gcnet.tasks.settings import Settings

SUMMARY = {"epochs": 1, "seconds": 2.0, "seconds_per_epoch": 2.0, "skipped_images": 0, "best_epoch": 1}


def cost(parameters=100, macs=1000, ratio=1.0):
    timing = Timing(Median(0.01 * ratio, 0.009, 0.02, 20), Median(ratio, 0.9 * ratio, 1.1 * ratio, 20))
    return Cost(parameters, macs, timing, timing)


def comparison(scores, *, costs=None, failures=()):
    """`scores` is label -> accuracies by seed."""
    results = [
        Result(label, seed, Path("runs", label, f"seed{seed}"), {"accuracy": value, "per_class": []}, SUMMARY)
        for label, values in scores.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    costs = costs or {label: cost() for label in scores}
    rows = make_rows(list(scores), results, costs, "accuracy")
    return Comparison(Path("runs"), Settings(data="d"), "accuracy", "test", rows, tuple(results), tuple(failures))


def test_means_and_paired_differences_are_those_worked_out_by_hand():
    none, gc = comparison({"none": [0.70, 0.80, 0.90], "gc": [0.72, 0.83, 0.91]}).rows
    assert none.accuracy.value == pytest.approx(0.80)
    assert none.accuracy.half_width == pytest.approx(4.3027 * 0.1 / 3**0.5)
    assert none.difference is None
    # differences .02, .03, .01: mean .02, deviation .01; pairing removes the seeds' own spread
    assert gc.difference.value == pytest.approx(0.02)
    assert gc.difference.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5)


def test_only_seeds_that_both_have_are_paired():
    found = comparison({"none": [0.70, None, 0.90], "gc": [0.72, 0.99, 0.93]})
    assert found.row("gc").accuracy.count == 3
    assert found.row("gc").difference.count == 2
    assert found.row("gc").difference.value == pytest.approx(0.025)


def test_a_variant_without_a_finished_run_has_no_accuracy_but_a_cost():
    found = comparison({"none": [0.7], "gc": [None]}, costs={"none": cost(), "gc": cost(150, 1100, 1.2)})
    row = found.row("gc")
    assert (row.accuracy, row.difference, row.added_parameters, row.added_macs) == (None, None, 50, 100)
    assert found.table[1]["accuracy"] is None
    assert found.table[1]["training_ratio"] == 1.2


def test_csv_keeps_all_digits():
    found = comparison({"none": [1 / 3, 1 / 3]})
    header, row = to_csv(found.table).splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["accuracy"] == repr(1 / 3)


def test_runs_list_the_failed_ones_with_the_reason():
    failure = Failure("gc", 0, "NonFiniteError: the loss is nan")
    done, failed = run_table(comparison({"none": [0.7], "gc": [None]}, failures=[failure]))
    assert (done["variant"], done["accuracy"], done["status"]) == ("none", 0.7, "done")
    assert "per_class" not in done
    assert failed["status"] == "NonFiniteError: the loss is nan"


def test_findings_name_what_is_higher_lower_and_open():
    found = comparison(
        {"none": [0.70, 0.71, 0.72], "up": [0.80, 0.81, 0.82], "down": [0.60, 0.61, 0.62], "odd": [0.6, 0.8, 0.7]}
    )
    text = " ".join(findings(found))
    assert "Higher accuracy than none, beyond the 95 % interval: up (+10.0)." in text
    assert "Lower accuracy than none, beyond the 95 % interval: down (-10.0)." in text
    assert "These seeds do not tell them from none: odd (-1.0)." in text


def test_one_seed_claims_nothing():
    (sentence,) = findings(comparison({"none": [0.5], "gc": [0.9]}))
    assert "single seed" in sentence


def _pair(cue, mirror):
    names = ("none", "se", "snl", "gc", "nl")
    return comparison(dict(zip(names, cue, strict=True))), comparison(dict(zip(names, mirror, strict=True)))


AS_PUBLISHED = ([0.80], [0.98], [0.98], [0.98], [0.975]), ([0.71], [0.79], [0.78], [0.78], [0.97])


def test_the_numbers_of_the_sketch_show_what_context_is_for():
    cue, mirror = _pair(*AS_PUBLISHED)
    assert meaning(cue, mirror).startswith("Where one context serves the whole picture")
    assert "One seed" in meaning(cue, mirror)
    said = conclusions(cue, mirror)
    assert "SE 98.0 %, SNL 98.0 %, GC 98.0 %; without a block: 80.0 %" in said["cue"]
    assert "adds nothing to that: NL 97.5 %" in said["cue"]
    assert "NL 97.0 %" in said["mirror"]
    assert said["cost"].startswith("Two blocks add to the model: GC 0 parameters and 0.0 % MACs, NL 0 ")
    assert "Only the block with a context for each cell" in said["mirror"]


def test_numbers_that_show_nothing_are_not_dressed_up():
    cue, mirror = _pair([[0.6]] * 5, [[0.6]] * 5)
    assert meaning(cue, mirror).startswith("These numbers do not show")
    said = conclusions(cue, mirror)
    assert said["cue"].startswith("None of the global blocks")
    assert "is not clearly better" in said["mirror"]


def test_half_of_the_story_is_told_as_half():
    cue, mirror = _pair(AS_PUBLISHED[0], [[0.7]] * 5)
    assert "do not show that the non-local block" in meaning(cue, mirror)
    cue, mirror = _pair(([0.8], [0.98], [0.81], [0.98], [0.98]), AS_PUBLISHED[1])
    assert "do not show that one shared context" in meaning(cue, mirror)
    assert "Not clearly better than no block: SNL" in conclusions(cue, mirror)["cue"]


def test_a_mean_difference_within_its_interval_is_not_clear():
    cue, _ = _pair(*AS_PUBLISHED)
    wobbly = comparison(
        {name: [0.5, 0.7, 0.9] if name == "nl" else [0.6, 0.6, 0.6] for name in ("none", "se", "snl", "gc", "nl")}
    )
    assert "do not show that the non-local block" in meaning(cue, wobbly)
    assert "is not clearly better" in conclusions(cue, wobbly)["mirror"]
