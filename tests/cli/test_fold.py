"""gcnet fold: a checkpoint that evaluate and predict read like any other."""

import json


def test_a_run_becomes_a_folded_checkpoint_with_the_same_figures(gcnet_command, run_folder, photos, tmp_path):
    folded = tmp_path / "f.safetensors"
    result = gcnet_command("fold", run_folder, folded)
    assert result.exit_code == 0, result.stderr
    assert f"written: {folded} (" in result.stdout
    assert "relative difference to the model before, on a random input: " in result.stdout
    figures = []
    for weights, name in ((run_folder / "model.safetensors", "a"), (folded, "b")):
        result = gcnet_command("evaluate", weights, "--data", photos, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        figures.append(json.loads((tmp_path / name / "evaluation.json").read_text()))
    assert figures[0]["confusion"] == figures[1]["confusion"]
    assert abs(figures[0]["loss"] - figures[1]["loss"]) < 1e-4
    assert gcnet_command("predict", photos / "test", "--weights", folded).exit_code == 0


def test_what_cannot_be_folded_is_one_line_and_exit_code_1(gcnet_command, run_folder, tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>Not found</html>")
    for arguments, said in (
        ((run_folder, tmp_path / "f.onnx"), "a checkpoint is a .safetensors file"),
        ((run_folder, tmp_path / "no" / "f.safetensors"), "does not exist; make it first"),
        ((tmp_path / "page.safetensors", tmp_path / "f.safetensors"), "web page saved under this name"),
        ((tmp_path, tmp_path / "f.safetensors"), "holds no finished run"),
    ):
        result = gcnet_command("fold", *arguments)
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert gcnet_command("fold", run_folder).exit_code == 2
