"""gcnet export: what was written and how far it is from PyTorch; bad input is one line."""

import sys

import onnxruntime
import pytest


def test_a_run_becomes_an_onnx_file_that_was_compared(gcnet_command, run_folder, tmp_path):
    result = gcnet_command("export", run_folder, tmp_path / "m.onnx", "--static")
    assert result.exit_code == 0, result.stderr
    assert f"written: {tmp_path / 'm.onnx'} (" in result.stdout
    assert "MB, folded)" in result.stdout
    assert f"compared with PyTorch by onnxruntime {onnxruntime.__version__}" in result.stdout
    assert "  input 1x3x32x32: " in result.stdout
    assert "(allowed 1.0e-04)" in result.stdout
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_modelmeta().custom_metadata_map["gcnet.classes"] == '["blue", "red"]'


def test_the_options_reach_the_recipe_and_its_answers_the_user(gcnet_command, tmp_path, monkeypatch):
    from gcnet.recipes import export

    asked = {}

    def recipe(weights, out, **options):
        asked.update(options)
        return sys.modules[export.__module__].Exported(out, 1, False, "of [x]", (3, 8, 8), None, "no kernel")

    monkeypatch.setattr(sys.modules[export.__module__], "export", recipe)
    for arguments, options in (
        ((), {"fold": None, "input_size": None, "dynamic": True, "dtype": None}),
        (("--fold", "--static"), {"fold": True, "dynamic": False}),
        (("--no-fold", "--fixed-size"), {"fold": False, "dynamic": "batch"}),
        (("--input", "3,40,48", "--dtype", "float16"), {"input_size": (3, 40, 48), "dtype": "float16"}),
    ):
        result = gcnet_command("export", "run", tmp_path / "m.pt2", *arguments)
        assert result.exit_code == 0, result.stderr
        assert asked == asked | options
    assert "(0.0 MB, not folded)\nnot folded, since of [x]\n" in result.stdout
    assert result.stderr == "gcnet: note: not compared with PyTorch: no kernel\n"


def test_what_cannot_be_exported_is_one_line_and_exit_code_1(gcnet_command, run_folder, tmp_path, monkeypatch):
    (tmp_path / "page.safetensors").write_text("<html>Not found</html>")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for arguments, said in (
        ((run_folder, tmp_path / "m.pb"), "the suffix says the format; allowed are .onnx, .pt2"),
        ((run_folder, tmp_path / "no" / "m.onnx"), "does not exist; make it first"),
        ((tmp_path / "page.safetensors", tmp_path / "m.onnx"), "web page saved under this name"),
        ((tmp_path / "no.safetensors", tmp_path / "m.onnx"), "no.safetensors"),
        ((tmp_path, tmp_path / "m.onnx"), "holds no finished run"),
        ((run_folder, tmp_path / "m.onnx", "--input", "3"), "input_size=(3,): expected channels and one to three"),
        ((run_folder, tmp_path / "m.onnx"), "gcnet: onnxscript is not installed: pip install 'gcnet[export]'"),
    ):
        result = gcnet_command("export", *arguments)
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["page.safetensors"]


@pytest.mark.parametrize(
    "arguments", [["--static", "--fixed-size"], ["--input", "3x224"], ["--dtype", "int8"], ["--levitate"]]
)
def test_wrong_usage_is_exit_code_2(gcnet_command, run_folder, tmp_path, arguments):
    assert gcnet_command("export", run_folder, tmp_path / "m.onnx", *arguments).exit_code == 2
