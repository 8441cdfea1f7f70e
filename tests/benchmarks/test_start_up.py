"""A start ends where the model's file is opened; a command that cannot start is said to be so."""

import pytest

import start_up


def test_the_help_opens_no_model_and_ends_by_itself(tmp_path):
    cpu, wall = start_up.begin("--help", tmp_path, start_up.SRC, absent=True)
    assert 0 < cpu < wall + 1


def test_the_table_has_a_line_for_each_side_and_compares_with_before():
    half, whole = ({"cpu_s": {"median": m, "low": m, "high": m}} for m in (2.0, 4.0))
    sides = {name: figures | {"wall_s": figures["cpu_s"]} for name, figures in (("before", whole), ("after", half))}
    rows = [{"case": "fold", "date": "today", **sides, "before, without Lightning": None}]
    lines = start_up.table(rows).splitlines()
    assert lines[2:] == [
        "| fold | before | 4.00 (4.00 to 4.00) | 4.00 (4.00 to 4.00) |  |",
        "| fold | after | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) | 0.50 |",
        "| fold | before, without Lightning | does not start |  |  |",
    ]


@pytest.mark.parametrize("command", sorted(start_up.COMMANDS))
def test_every_command_but_help_is_given_the_model(command):
    assert command == "--help" or "MODEL" in start_up.COMMANDS[command]
