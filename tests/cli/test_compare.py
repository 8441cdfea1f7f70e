"""`gcnet compare`: from options to settings, what it says, its exit code."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import gcnet.recipes.comparison  # noqa: F401
from gcnet.analysis.published import AXES
from gcnet.cli import app
from gcnet.recipes.run.folder import check_resumable
from gcnet.scenes import source as sources

compare_module = sys.modules["gcnet.recipes.comparison"]


@pytest.fixture
def called(monkeypatch):
    """The arguments of `compare`, which is not run."""
    seen = SimpleNamespace(settings=None, options=None)

    def note(settings, **options):
        seen.settings, seen.options = settings, options
        check_resumable(Path("nowhere"), settings)

    monkeypatch.setattr(compare_module, "compare", note)
    return seen


def invoke(*words):
    return CliRunner().invoke(app, ["compare", *words])


def test_options_become_settings(called):
    result = invoke(
        *("--data", "d", "--model", "resnet18", "--blocks", "none,se, gc", "--seeds", "2", "--epochs", "5"),
        *("--stages", "c4,c5", "--option", "reduction=4", "--setting", "schedule=one_cycle", "--setting", "mixup=0.2"),
        *("--name", "x", "--runs", "somewhere", "--seed", "7"),
    )
    assert "gcnet: nowhere holds no run to resume" in result.output
    assert result.exit_code == 1
    settings, options = called.settings, called.options
    how = settings.optimisation
    assert (settings.model.name, how.epochs, how.schedule, settings.own.mixup) == ("resnet18", 5, "one_cycle", 0.2)
    assert (settings.block.stages, settings.block.options, settings.run.seed) == (("c4", "c5"), {"reduction": 4}, 7)
    assert str(settings.run.runs) == "somewhere"
    assert options == {"blocks": ["none", "se", "gc"], "axis": None, "values": None, "seeds": 2, "name": "x"}


def test_values_of_an_axis_are_numbers_words_or_none(called):
    invoke("--data", "d", "--block", "gc", "--axis", "reduction", "--values", "4,8,0.5,true,none,c3+c4")
    assert called.settings.block.name == "gc"
    assert called.options["axis"] == "reduction"
    assert called.options["values"] == [4, 8, 0.5, True, None, "c3+c4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing option '--data'"),
        (["--data", "d", "--block", "gc"], "goes with --axis"),
        (["--data", "d", "--setting", "colour=red"], "'colour' is no"),
        (["--data", "d", "--option", "reduction"], "is not NAME=VALUE"),
    ],
)
def test_wrong_usage_exits_with_2(words, said, called):
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert called.settings is None


def test_the_blocks_of_old_are_still_the_values_of_the_axis_block(called):
    invoke("--data", "d", "--axis", "block", "--blocks", "none,se")
    assert called.options["blocks"] == ["none", "se"]
    invoke("--data", "d", "--axis", "block")
    assert called.options["blocks"] is called.options["values"] is None


@pytest.mark.filterwarnings("default::gcnet.tasks.detection.recipe.SettingsWarning")
def test_detectors_have_the_published_training(called):
    result = invoke(
        *(
            "--data",
            "d",
            "--task",
            "instances",
            "--axis",
            "reduction",
            "--setting",
            'detector_options={"norm": "frozen"}',
        ),
        *("--setting", "scales=[48, 64]"),
    )
    assert "note: lr: 0.02 is for 16 images in a step; for 2 it is scaled to 0.0025" in result.output
    settings = called.settings
    how = settings.optimisation
    assert (settings.model.name, how.epochs, how.schedule) == ("maskrcnn_resnet50_fpn", 12, "steps")
    assert (settings.model.options, settings.own.scales, settings.block.name) == ({"norm": "frozen"}, (48, 64), None)


def test_the_help_names_the_ablations_of_the_paper(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = " ".join(invoke("--help").output.replace("│", " ").split())
    for axis in AXES:
        assert axis in text
    assert "gcnet compare --data DIR --model resnet50 --axis reduction" in text


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def interrupted(settings, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_module, "compare", interrupted)
    result = invoke("--data", "d")
    assert result.exit_code == 1
    assert "the same command goes on where it was" in result.output


def test_a_comparison_ends_with_its_table_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sources, "SCENE_COUNTS", {"train": 16, "val": 8, "test": 8})
    result = invoke(
        *("--data", "cue", "--task", "scenes", "--model", "scenes", "--blocks", "none,gc", "--seeds", "1"),
        *("--epochs", "1", "--batch-size", "16", "--runs", str(tmp_path)),
    )
    assert result.exit_code == 0, result.output
    assert "balanced accuracy, %" in result.output
    assert "×" in result.output
    assert "single seed" in result.output
    assert f"{tmp_path / 'compare'}: report.html" in result.output
    assert "beside the paper" not in result.output


def test_an_ablation_of_the_paper_ends_with_its_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sources, "SCENE_COUNTS", {"train": 16, "val": 8, "test": 8})
    result = invoke(
        *("--data", "cue", "--task", "scenes", "--model", "scenes", "--axis", "block", "--values", "none,gc+1"),
        *("--seeds", "1", "--epochs", "1", "--batch-size", "16", "--runs", str(tmp_path)),
    )
    assert result.exit_code == 0, result.output
    table = result.output.split("beside the paper")[1]
    assert "38.1 / 34.9 (r)" in table
    assert "+0.9 / +1.1" in table
    assert "recalled from the paper, not verified" in table
