"""gcnet predict: all good files are done, then the broken ones are named."""

import json


def test_good_files_are_a_table_and_two_files(gcnet_command, run_folder, photos, tmp_path):
    result = gcnet_command("predict", photos / "test", "--weights", run_folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("0.png") == 2
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 2
    assert "predictions.csv" in result.stdout


def test_broken_files_are_named_after_the_good_ones_and_the_exit_code_is_1(gcnet_command, run_folder, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    good = photos / "test" / "red" / "0.png"
    result = gcnet_command("predict", broken, good, "--weights", run_folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"gcnet: {broken}: " in result.stderr
    assert "1 of 2 images could not be read" in result.stderr
    assert [bool(row["error"]) for row in json.loads((tmp_path / "out" / "predictions.json").read_text())] == [
        True,
        False,
    ]


def test_weights_that_are_none(gcnet_command, photos, tmp_path):
    result = gcnet_command("predict", photos, "--weights", tmp_path / "no.safetensors")
    assert result.exit_code == 1
    assert result.stderr == f"gcnet: there is no file {tmp_path / 'no.safetensors'}\n"


def test_attention_is_drawn_beside_the_predictions(gcnet_command, run_folder, photos, tmp_path):
    out = tmp_path / "out"
    image = photos / "test" / "red" / "0.png"
    result = gcnet_command("predict", image, "--weights", run_folder, "--out", out, "--show-attention")
    assert result.exit_code == 0, result.stderr
    assert "for each image a picture of the attention" in result.stdout
    assert {path.name for path in out.iterdir()} == {"predictions.csv", "predictions.json", "0.attention.png"}
