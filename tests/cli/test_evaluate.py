"""gcnet evaluate."""

import json


def test_a_run_is_measured_and_the_classes_are_listed(gcnet_command, run_folder):
    result = gcnet_command("evaluate", run_folder)
    assert result.exit_code == 0, result.stderr
    for word in ("red", "blue", "precision", "accuracy", "on 2 examples (test)", "evaluation.json"):
        assert word in result.stdout
    assert json.loads((run_folder / "evaluation.json").read_text())["images"] == 2


def test_a_file_of_weights_on_other_data_with_a_folder_for_the_figures(gcnet_command, run_folder, photos, tmp_path):
    result = gcnet_command(
        "evaluate", run_folder / "model.safetensors", "--data", photos, "--split", "train", "--out", tmp_path / "o"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "o" / "evaluation.json").read_text())["images"] == 4


def test_what_cannot_be_measured_is_one_line_and_exit_code_1(gcnet_command, run_folder, photos, tmp_path):
    (tmp_path / "page.safetensors").write_text("<html>Not found</html>")
    for arguments, said in (
        ((tmp_path / "page.safetensors", "--data", photos), "web page saved under this name"),
        ((run_folder, "--split", "exam"), "split='exam'"),
        ((tmp_path,), "holds no finished run"),
    ):
        result = gcnet_command("evaluate", *arguments)
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
