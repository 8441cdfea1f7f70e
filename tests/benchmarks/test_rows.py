import json

import pytest

import rows


def _table(found):
    return rows.as_table("case | value", [f"{row['case']} | {row['value']}" for row in found])


def _take(tmp_path, cases, only="*"):
    return rows.take("x", "about", cases, _table, only=only, folder=tmp_path)


def _interrupted():
    raise KeyboardInterrupt


CASES = {"a 1": lambda: {"value": 1}, "b 2": lambda: {"value": 2}}


def test_parts_join_in_the_order_of_the_cases(tmp_path):
    _take(tmp_path, CASES, only="b *")
    found = _take(tmp_path, CASES, only="a *")
    assert [(row["case"], row["value"]) for row in found] == [("a 1", 1), ("b 2", 2)]
    assert "| a 1 | 1 |\n| b 2 | 2 |" in (tmp_path / "x.md").read_text()


def test_a_row_taken_again_replaces_the_earlier_one(tmp_path):
    _take(tmp_path, CASES)
    found = _take(tmp_path, {**CASES, "a 1": lambda: {"value": 5}}, only="a 1")
    assert [row["value"] for row in found] == [5, 2]


def test_rows_of_another_machine_or_version_are_left_out(tmp_path, capsys):
    _take(tmp_path, CASES)
    data = json.loads((tmp_path / "x.json").read_text())
    data["environment"]["torch"] = "1.0"
    (tmp_path / "x.json").write_text(json.dumps(data))
    found = _take(tmp_path, CASES, only="a 1")
    assert [row["case"] for row in found] == ["a 1"]
    assert "taken with another torch" in capsys.readouterr().out


def test_an_interruption_keeps_the_finished_rows(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        _take(tmp_path, {**CASES, "c 3": _interrupted})
    assert exit.value.code == 130
    assert "interrupted after 2 of 3 rows" in capsys.readouterr().out
    assert [row["case"] for row in json.loads((tmp_path / "x.json").read_text())["rows"]] == ["a 1", "b 2"]


def test_a_glob_without_a_row_lists_the_rows(tmp_path):
    with pytest.raises(SystemExit, match=r"--only 'z' fits no row; the rows are:\na 1\nb 2"):
        _take(tmp_path, CASES, only="z")


def test_the_files_tell_hardware_versions_and_date(tmp_path):
    _take(tmp_path, CASES)
    data = json.loads((tmp_path / "x.json").read_text())
    assert data["environment"].keys() >= {"cpu", "threads", "torch", "torchvision", "timm", "mmcv-lite", "date"}
    assert all(row["date"] for row in data["rows"])


def test_a_goal_is_met_by_the_median_or_by_the_interval():
    def interval(low, median, n=6):
        return {"low": low, "median": median, "high": 2.0, "n": n}

    assert rows.reached(interval(0.9, 1.01), 1.01) == "met"
    assert rows.reached(interval(1.01, 1.02), 1.01) == "met by the interval"
    assert rows.reached(interval(1.011, 1.02), 1.01) == "missed"
    assert rows.reached(interval(0.9, 0.95, n=5), 1.01) == "too few rounds"


def test_a_ratio_is_taken_inside_the_rounds():
    seconds = {"slow": [2.0, 20.0, 200.0], "base": [1.0, 10.0, 100.0]}
    assert rows.time_over(seconds, "slow", "base").value == 2
    assert rows.percent_cell({"median": 1.012, "low": 0.99, "high": 1.1}) == "+1.2 (-1.0 to +10.0)"
