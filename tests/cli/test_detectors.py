"""train, evaluate and predict of a detector on the command line."""

import json

import pytest

from gcnet.tasks.settings import from_json
from tests.recipes.detection import TINY, write_discs

# The command says them as notes.
pytestmark = pytest.mark.filterwarnings("default::gcnet.tasks.detection.recipe.SettingsWarning")
SMALL = [f"--detector-option={name}={value}" for name, value in TINY.items()]


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("discs"), (("train", 2), ("val", 2)))


def test_train_evaluate_and_predict_go_hand_in_hand(gcnet_command, discs, tmp_path):
    trained = gcnet_command(
        "train", "--task", "instances", "--data", discs, "--model", "maskrcnn_resnet18_fpn", *SMALL, "--block", "gc",
        "--stages", "c5", "--image-size", 64, "--scales", "48,64", "--epochs", 1, "--deform", "c5", "--runs", tmp_path,
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    assert "note: lr: 0.02 is for 16 images in a step; for 2 it is scaled to 0.0025" in trained.stderr
    assert "mask_AP" in trained.stdout
    settings = from_json(tmp_path / "run" / "settings.json")
    how = settings.optimisation
    assert (how.lr, how.schedule, settings.own.scales) == (0.0025, "steps", (48, 64))
    assert settings.model.options == TINY

    measured = gcnet_command("evaluate", tmp_path / "run", "--split", "val")
    assert measured.exit_code == 0, measured.stderr
    assert "blue" in measured.stdout
    assert "mask_AP50" in measured.stdout

    found = gcnet_command(
        "predict", discs / "val" / "val0.png", discs / "gone.png", "--weights", tmp_path / "run", "--out",
        tmp_path / "out", "--threshold", 0, "--show-attention",
    )  # fmt: skip
    assert found.exit_code == 1  # one file is not there
    assert "gone.png: does not exist" in found.stderr
    assert "for each image a picture and a JSON file, a picture of the attention" in found.stdout
    assert json.loads((tmp_path / "out" / "val0.json").read_text())["width"] == 64
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"val0.png", "val0.json", "val0.attention.png"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--recipe", "1x"), 2, "goes with --task detect or instances"),
        (("--task", "instances", "--scales", "a"), 2, "is no list of sizes such as"),
        (("--task", "instances", "--detector-option", "norm"), 2, "is not NAME=VALUE"),
        (("--task", "instances", "--recipe", "3x"), 1, "recipe='3x': allowed are '1x', '2x'"),
        (("--task", "detect", "--strict", "--cache"), 1, "cache=True does nothing for task='detect'"),
    ],
)
def test_wrong_options_are_named(gcnet_command, discs, options, code, said):
    result = gcnet_command("train", "--data", discs, *options)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
