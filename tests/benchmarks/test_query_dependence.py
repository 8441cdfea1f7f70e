"""The study at a tiny size: one run of each kind, and tables, figure and page from rows that are written down."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

import query_dependence as study
import query_dependence_report as report
import simplify
from gcnet.analysis.verdict import THRESHOLDS
from gcnet.scenes import source as sources
from query_dependence import Case


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(sources, "SCENE_COUNTS", {"train": 128, "val": 16, "test": 32})
    monkeypatch.setattr(study, "EPOCHS", 1)
    monkeypatch.setattr(study, "IMAGES", 8)
    monkeypatch.setattr(simplify, "IMAGES", 64)


@pytest.mark.parametrize(
    ("case", "parts"),
    [(Case("digits", "dial-1", "nl-concatenation", 3), True), (Case("digits", "twice", "none", 0), False)],
)
def test_a_run_is_trained_measured_and_taken_as_it_is_the_next_time(case, parts, tiny, tmp_path, monkeypatch):
    row = study.measure(case, tmp_path)
    assert 0 <= row["accuracy"] <= 1
    assert ("cue_accuracy" in row, "mirror_accuracy" in row) == (parts, parts)
    assert ("one_map_accuracy" in row) == (case.model in report.QUERIED)
    assert [block["block"] for block in row["blocks"]] == (["spots.0.context", "spots.1.context"] if parts else [])
    if parts:
        assert row["blocks"][0]["att_jsd"] is None, "the maps of this form are no distributions"
        assert all(block["low"] <= block["dependence"] <= block["high"] for block in row["blocks"])
        labels = sources.open_scenes("dial-1", ("test",)).datasets["test"][:][1]
        counts = [(labels[:, lines] >= 0).sum().item() for lines in (slice(0, 3), slice(3, 4))]
        assert counts == [32 * 11, 32 * 4]
    json.dumps(row, allow_nan=False)
    weights = (tmp_path / case.settings(tmp_path).run.name / "model.safetensors").stat().st_mtime_ns
    assert study.measure(case, tmp_path) == row
    assert (tmp_path / case.settings(tmp_path).run.name / "model.safetensors").stat().st_mtime_ns == weights


def test_the_study_has_every_model_on_every_task():
    cases = study.all_cases()
    assert len(cases) == 6 * (9 * 5 + 5 * 3)
    assert [str(case) for case in cases[:2]] == ["digits cue none 0", "digits cue se 0"]
    assert len({case.settings(study.Path("runs")).folder for case in cases}) == len(cases)
    assert Case("fashion", "twice", "gc", 2).settings(study.Path("runs")).data.path == "twice/fashion"
    assert set(report.SHARES) | {"twice"} == set(study.TASKS)
    assert {*report.QUERIED, *report.ONE_CONTEXT} < set(study.MODELS)


def _row(case, accuracy, *dependences):
    blocks = [
        {
            **dict.fromkeys((*study.FIGURES, "query_between", "query_within"), 0.1),
            "block": f"spots.{number}.context",
            "dependence": value,
            "low": value - 0.01,
            "high": value + 0.01,
        }
        for number, value in enumerate(dependences)
    ]
    row = {"case": str(case), **vars(case), "epochs": study.EPOCHS, "accuracy": accuracy, "blocks": blocks}
    if case.model in report.QUERIED:
        row["one_map_accuracy"] = accuracy - max(dependences, default=0)
    return row | ({"cue_accuracy": 0.97, "mirror_accuracy": 0.75} if case.task.startswith("dial") else {})


def _rows():
    """Queries are worth something on the dial, and used where more than one row needs a partner, and in `twice`."""
    rows = []
    for case in study.all_cases():
        share = report.SHARES.get(case.task, 0.0)
        queried = case.model in report.QUERIED
        own = 0.02 + 0.4 * share if queried and share > 0.25 else 0.02 if queried else 0.0
        own = 0.3 if queried and case.task == "twice" else own
        accuracy = 0.97 - (0 if queried else 0.2 * share) + 0.001 * case.seed
        rows.append(_row(case, accuracy, *(() if case.model == "none" else (own, own / 2))))
    return rows


def test_finished_runs_are_kept_failed_ones_are_named_and_nothing_is_done_twice(tmp_path, capsys):
    cases = [Case("digits", task, "nl", 0) for task in ("mirror", "cue", "twice")]

    def work(case):
        if case.task == "cue":
            raise ValueError("a bad loss")
        return _row(case, 0.9, 0.1, 0.2)

    found = study.Study(tmp_path, len(cases))
    with ThreadPoolExecutor(2) as pool:
        study.collect(cases, work, pool, 2, found.add)
    printed = capsys.readouterr().out
    assert "digits cue nl 0: failed: ValueError: a bad loss" in printed
    assert "digits mirror nl 0: 90.0 %, dependence 0.100, 0.200" in printed
    assert (found.done, found.failed) == (3, 1)
    again = study.Study(tmp_path)
    assert [case.task for case in cases if again.lacks(case)] == ["cue"]
    assert [row["task"] for row in json.loads(again.path.read_text())["rows"]] == ["mirror", "twice"]


def test_an_interruption_in_a_run_ends_the_study_and_keeps_what_was_finished(tmp_path):
    def work(case):
        if case.task == "cue":
            raise KeyboardInterrupt
        return _row(case, 0.9)

    found = study.Study(tmp_path, 3)
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyboardInterrupt):
        study.collect([Case("digits", task, "nl", 0) for task in ("mirror", "cue", "twice")], work, pool, 1, found.add)
    assert list(study.Study(tmp_path).rows) == ["digits mirror nl 0"]


def test_rows_that_lack_the_accuracy_with_one_map_are_completed(tmp_path):
    case = Case("digits", "cue", "nl", 0)
    row = _row(case, 0.9, 0.1)
    del row["one_map_accuracy"]
    found = study.Study(tmp_path, 1)
    found.add(case, row)
    assert found.lacks(case)
    found.add(case, _row(case, 0.9, 0.1))
    assert not found.lacks(case)


def test_results_of_another_number_of_epochs_are_taken_again(tmp_path, monkeypatch):
    case = Case("digits", "cue", "nl", 0)
    study.Study(tmp_path, 1).add(case, _row(case, 0.9, 0.1))
    monkeypatch.setattr(study, "EPOCHS", study.EPOCHS + 1)
    assert study.Study(tmp_path).lacks(case)


def test_the_tables_have_means_pairs_and_thresholds():
    text = report.sections(_rows())
    assert "| nl | 97.2 ± 0.2 | 97.2 ± 0.2 |" in text
    assert "| nl | +0.0 ± 0.0 | +5.0 ± 0.0 | +10.0 ± 0.0 | +15.0 ± 0.0 | +20.0 ± 0.0 | +0.0 ± 0.0 |" in text
    assert (
        "| nl | 0.020 ± 0.000 | 0.020 ± 0.000 | 0.220 ± 0.000 | 0.320 ± 0.000 | 0.420 ± 0.000 | 0.300 ± 0.000 |" in text
    )
    assert "| nl | -2.0 ± 0.0 | -2.0 ± 0.0 | -22.0 ± 0.0 | -32.0 ± 0.0 | -42.0 ± 0.0 | -30.0 ± 0.0 |" in text
    assert "| nl | 0 / 0 of 5 | 0 / 5 of 5 | 5 / 5 of 5 | 5 / 5 of 5 | 5 / 5 of 5 | 5 / 0 of 5 |" in text
    assert "Calibrated on 125 runs on the dial of digits, of which 75 lose more than 3 points" in text
    assert "independent below 0.087, dependent above 0.153, undecided the middle third of the gap" in text
    assert "| digits, twice | 25 | 0 | 0 |" in text
    assert "| fashion, dial: nl | 15 | 0 | 0 |" in text


def test_the_gain_is_over_the_best_of_the_models_with_one_context():
    rows = [
        _row(Case("digits", "cue", *run), value) for *run, value in (("gc", 0, 0.9), ("snl", 0, 0.94), ("nl", 0, 0.95))
    ]
    assert report.gaps(rows, "digits", "cue", "nl")[0] == pytest.approx(0.05)
    assert report.gaps(rows, "digits", "cue", "nl", report.ONE_CONTEXT)[0] == pytest.approx(0.01)


def test_one_seed_has_tables_without_intervals():
    rows = [row for row in _rows() if row["seed"] == 0 and row["items"] == "digits"]
    text = report.sections(rows)
    assert "| gc | 97.0 | 92.0 |" in text
    assert "Too few seeds to judge each by the others." in text
    few = [row for row in rows if row["model"] in ("none", "gc")]
    assert "Too few runs" in report.sections(few)


def test_the_page_gets_figure_words_and_tables_between_its_marks(tmp_path):
    page = tmp_path / "query-dependence.md"
    page.write_text(f"# Title\n\n{report.BEGIN}\n\nbefore\n\n{report.END}\n\nafter\n")
    written = report.write_docs(_rows(), tmp_path)
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\n\nafter\n")
    assert "before" not in text
    assert "In *mirror*, where every cell needs its partner, the non-local block is +20.0 ± 0.0 points above GC" in text
    assert "one map in their place changes the accuracy by -42.0 ± 0.0 points" in text
    assert [path.suffix for path in written] == [".md", ".svg", ".png"]
    assert f"]({written[1].relative_to(tmp_path)})" in text
    assert all(path.stat().st_size < 200_000 for path in written)
    first = written[1].read_bytes()
    report.write_docs(_rows(), tmp_path)
    assert written[1].read_bytes() == first, "equal results give equal files"


def test_a_page_without_the_marks_is_refused(tmp_path):
    (tmp_path / "query-dependence.md").write_text("# Title\n")
    with pytest.raises(ValueError, match="lacks the two lines"):
        report.write_docs(_rows(), tmp_path)


def test_the_page_and_the_verdict_say_what_the_results_file_says():
    text = (report.DOCS / "query-dependence.md").read_text()
    own = text[text.index(report.BEGIN) : text.index(report.END)]
    rows = study.Study(study.RESULTS).ordered(study.all_cases())
    if len(rows) < len(study.all_cases()):
        assert "The study has not been run to its end yet" in own
        return
    assert report.sections(rows) in own, "write the page anew: python benchmarks/query_dependence.py --docs"
    found = report.thresholds_of(rows)
    assert found is not None
    cut = {
        "independent_below": math.floor(100 * found.independent_below) / 100,
        "dependent_above": math.ceil(100 * found.dependent_above) / 100,
    }
    assert cut == THRESHOLDS, "src/gcnet/analysis/verdict.py and docs/guide-analyze.md have other thresholds"


def test_the_command_names_runs_that_do_not_exist_and_writes_no_page_from_a_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(study.os, "environ", {})
    monkeypatch.setattr("sys.argv", ["study", "--only", "digits ring *", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"fits no run; the runs are:\ndigits cue none 0"):
        study.main()
    case = Case("digits", "cue", "gc", 0)
    study.Study(tmp_path, 1).add(case, _row(case, 0.9, 0.0))
    monkeypatch.setattr(study, "write_docs", lambda rows: pytest.fail("a page from a part of the runs"))
    monkeypatch.setattr("sys.argv", ["study", "--docs", "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as exit:
        study.main()
    assert exit.value.code == 1
    assert "359 of 360 runs are missing: the page was left as it is" in capsys.readouterr().out
