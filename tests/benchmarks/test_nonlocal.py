"""The benchmarks of the non-local block and the table of costs, at tiny sizes."""

import fnmatch

import pytest
import torch

import cost_table
import nonlocal_peers
import nonlocal_softmax


@pytest.mark.parametrize("what", nonlocal_peers.PASSES)
@pytest.mark.parametrize("form", nonlocal_peers.PEERS)
def test_peers_compute_the_same_and_the_table_has_both(form, what):
    missing = nonlocal_peers.why_missing(form, what, 30)
    if missing:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            nonlocal_peers.measure(form, what, "NCHW", (5, 6), rounds=1, seconds=0, channels=16)
        return
    row = nonlocal_peers.measure(form, what, "channels_last", (5, 6), rounds=1, seconds=0, channels=16)
    assert 0 <= row["difference"] <= nonlocal_peers.TOLERANCE
    text = nonlocal_peers.table([{"case": "a case", **row}])
    assert f"| {nonlocal_peers.PEERS[form]}: " in text


@pytest.mark.parametrize("what", nonlocal_peers.PASSES)
def test_peers_that_differ_are_not_timed(what, monkeypatch):
    build = nonlocal_peers.build

    def spoilt(form, channels):
        blocks = build(form, channels)
        with torch.no_grad():
            blocks["ours"].g.weight.mul_(1.01)
        return blocks

    monkeypatch.setattr(nonlocal_peers, "build", spoilt)
    with pytest.raises(AssertionError, match="relative difference"):
        nonlocal_peers.measure("dot_product", what, "NCHW", (5, 6), rounds=1, seconds=0, channels=16)


def test_what_cannot_be_run_is_said_with_the_reason():
    reason = nonlocal_peers.why_missing("concatenation", "forward", 4200)
    assert reason == "mmcv: does not fit, its pairs alone take 72 GB"
    row = nonlocal_peers.measure(
        "concatenation", "forward", "NCHW", (5, 6), rounds=1, seconds=0, channels=16, missing=reason
    )
    assert list(row["ms"]) == ["ours"]
    assert f"| {reason} |" in nonlocal_peers.table([{"case": "a case", **row}])


def test_without_options_the_peers_are_compared_in_one_memory_format():
    names = nonlocal_peers.cases(1.0)
    assert len(names) == 2 * 2 * (len(nonlocal_peers.PEERS) + 1)
    assert len(fnmatch.filter(names, "*NCHW")) == len(names) / 2


@pytest.mark.parametrize("what", nonlocal_softmax.PASSES)
def test_routes_agree_and_memory_is_taken_over_p(what):
    route = nonlocal_softmax.routes(40, 12, 8, what, rounds=1, seconds=0)
    curve = nonlocal_softmax.memory(8, 8, what, positions=(256, 1024), some=64)
    text = nonlocal_softmax.table([{"case": "a route", **route}, {"case": "a curve", **curve}])
    assert "(64 queries)" in text
    assert "| a route |" in text
    assert "| (the P x P matrix) | 0.2 | 4.0 | 64.0 |" in text


def test_the_table_of_costs_has_the_papers_figures_beside_ours():
    rows = [row for row in cost_table.DETECTION if row[0] in ("none", "+1 NL, sub-sampled before the layers")]
    results, lines = cost_table.section("title", rows, (3, 800, 1280), False)
    assert round(results[1]["added_macs"] / 1e9, 1) == results[1]["paper_added_macs_G"] == 9.3
    assert results[1]["added_params"] == 2_099_712
    assert lines[-2].endswith("| 2.100 | 2.100 | 92.750 | 9.339 | 11.20% | +9.30 |")
    assert cost_table.by_stage(results)[5].endswith("| 0.000 | 0.000 | 0.000 | 9.339 | 0.000 |")
