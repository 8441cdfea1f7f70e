"""gcnet train: from options to settings, what it says, and how it goes on."""

import json

import pytest
import typer

import gcnet
from gcnet.cli.options import named_values
from gcnet.tasks.settings import from_json
from gcnet.tasks.step import Task

SMALL = ("--model", "timm/test_resnet", "--image-size", 32, "--batch-size", 4)


def test_options_become_the_settings_of_the_run(gcnet_command, photos, tmp_path):
    result = gcnet_command(
        "train", "--data", photos, *SMALL, "--block", "gc", "--stages", "c4,c5", "--reduction", 4, "--option",
        "activation=none", "--epochs", 1, "--name", "one", "--runs", tmp_path, "--no-channels-last", "--seed", 5,
        "--where=-1",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "1 epochs in" in result.stdout
    assert "best: accuracy" in result.stdout
    assert f"{tmp_path / 'one'}: model.safetensors" in result.stdout
    settings = from_json(tmp_path / "one" / "settings.json")
    assert (settings.block.name, settings.block.stages, settings.run.seed) == ("gc", ("c4", "c5"), 5)
    assert settings.block.options == {"reduction": 4, "activation": None}
    assert settings.run.channels_last is False
    (inserted,) = gcnet.load_checkpoint(tmp_path / "one" / "model.safetensors").architecture["rewrites"]
    assert inserted["where"] == -1


def test_an_interrupted_run_says_how_to_go_on_and_does(gcnet_command, photos, tmp_path, monkeypatch):
    def interrupted(self, batch, batch_idx):
        raise KeyboardInterrupt

    arguments = ("train", "--data", photos, *SMALL, "--epochs", 1, "--runs", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", interrupted)
        result = gcnet_command(*arguments)
    assert result.exit_code == 1
    assert result.stderr == f"gcnet: interrupted; go on by: gcnet train --resume {tmp_path / 'run'}\n"
    again = gcnet_command(*arguments)
    assert again.exit_code == 1
    assert "holds a run that is interrupted" in again.stderr
    changed = gcnet_command("train", "--resume", tmp_path / "run", "--lr", 0.5)
    assert changed.exit_code == 1
    assert "lr: 0.001 -> 0.5" in changed.stderr
    resumed = gcnet_command("train", "--resume", tmp_path / "run", "--epochs", 2)
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 2


def test_an_interruption_before_the_run_began_says_so(gcnet_command, photos, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gcnet.data.source.load_classification", interrupted)
    result = gcnet_command("train", "--data", photos, *SMALL, "--epochs", 1, "--runs", tmp_path)
    assert (result.exit_code, result.stderr) == (1, "gcnet: interrupted; the run had not begun\n")


def test_a_loss_that_is_not_a_number_is_exit_code_1_and_names_the_files(gcnet_command, photos, tmp_path, monkeypatch):
    nan = float("nan")
    monkeypatch.setattr(
        "gcnet.tasks.classification.module.ClassifyTask.loss",
        lambda self, outputs, batch: self.plain_loss(outputs, batch) * nan,
    )
    result = gcnet_command("train", "--data", photos, *SMALL, "--epochs", 1, "--runs", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "loss is nan at step 0" in result.stderr
    assert "0.png" in result.stderr


def test_skipped_images_are_counted_and_named_at_the_end(gcnet_command, photos, tmp_path):
    broken = photos / "train" / "red" / "broken.png"
    broken.write_bytes(b"")
    try:
        result = gcnet_command("train", "--data", photos, *SMALL, "--epochs", 1, "--runs", tmp_path)
    finally:
        broken.unlink()
    assert result.exit_code == 0, result.stderr
    assert "1 unreadable images were skipped" in result.stdout
    assert str(broken) in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--data"),
        (("--resume", "nowhere"), 2, "nowhere holds no run"),
        (("--data", "nowhere"), 1, "nowhere does not exist"),
        (("--data", "PHOTOS", "--model", "resnet5"), 1, "'resnet5' is no model"),
        (("--data", "PHOTOS", "--block", "gcc"), 1, "gcc"),
        (("--data", "PHOTOS", "--reduction", "4"), 1, "reduction given without block"),
        (("--data", "PHOTOS", "--epochs", "0"), 1, "epochs=0: allowed are whole numbers from 1"),
        (("--data", "PHOTOS", "--option", "reduction"), 2, "NAME=VALUE"),
    ],
)
def test_mistakes_are_said_in_words(gcnet_command, photos, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    result = gcnet_command("train", *(photos if argument == "PHOTOS" else argument for argument in arguments))
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_plain_model_can_be_asked_for_by_name(gcnet_command, photos, tmp_path):
    result = gcnet_command(
        "train", "--data", photos, *SMALL, "--block", "none", "--epochs", 1, "--runs", tmp_path
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert from_json(tmp_path / "run" / "settings.json").block.name is None


def test_values_of_block_options():
    texts = ["reduction=8", "scale=0.5", "norm=false", "bias=True", "subsample=after", "hidden=none", "x=a=b"]
    assert named_values(texts) == {
        "reduction": 8, "scale": 0.5, "norm": False, "bias": True, "subsample": "after", "hidden": None, "x": "a=b",
    }  # fmt: skip
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        named_values(["two words=3"])
