"""gcnet simplify: a checkpoint and images in, a checkpoint out that evaluate and predict read like any other."""

import json
import math
import sys

import pytest
import torch
from torch import nn

import gcnet
from gcnet.errors import SettingsError
from gcnet.recipes.simplification import simplify
from gcnet.surgery import record


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A classifier with two blocks: one that needs its query, one that needs none."""
    torch.manual_seed(0)
    plain = gcnet.create_model("timm/test_resnet", num_classes=2)
    preprocessing = dict(record.preprocessing(plain), size=[32, 32], resize=32)
    model = gcnet.insert(plain, "dnl", stages=["c3"], where="last")
    model = gcnet.insert(model, "nl", stages=["c4"], where="last", pairwise="embedded_gaussian")
    record.set_preprocessing(model, preprocessing)
    record.set_classes(model, ["blue", "red"])
    first, block = gcnet.inserted(model).values()
    for parameter in (*first.parameters(), *block.parameters()):
        nn.init.normal_(parameter, std=0.3)
    nn.init.zeros_(block.theta.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts the last of each branch at zero: no map there
            nn.init.ones_(module.weight)
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    gcnet.save_checkpoint(model, path)
    return path


def test_a_checkpoint_is_simplified_with_images(gcnet_command, trained, photos, tmp_path):
    out = tmp_path / "simple.safetensors"
    (tmp_path / "broken.png").write_bytes(b"<html>")
    arguments = ("--images", photos / "train", "--images", photos / "test", "--images", tmp_path / "broken.png")
    result = gcnet_command("simplify", trained, out, *arguments, "--batch-size", 4)
    assert result.exit_code == 0, result.stderr
    first, second = gcnet.inserted(gcnet.load_checkpoint(trained).model)
    assert f"kept {first}: the error" in result.stdout
    assert f"skipped {tmp_path / 'broken.png'}: is a web page" in result.stdout
    assert "replaced (shared)" in result.stdout
    assert "whole model: " in result.stdout
    assert f"written: {out} (1 of 2 blocks replaced, 5 images to fit)" in result.stdout
    loaded = gcnet.load_checkpoint(out)
    assert record.rewrites(loaded.model)[-1]["replaced"] == {second: "shared"}
    assert loaded.classes == ["blue", "red"]
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.model(x), gcnet.load_checkpoint(trained).model(x), rtol=1e-3, atol=1e-4)
    figures = []
    for weights, name in ((trained, "a"), (out, "b")):
        assert gcnet_command("evaluate", weights, "--data", photos, "--out", tmp_path / name).exit_code == 0
        figures.append(json.loads((tmp_path / name / "evaluation.json").read_text()))
    assert figures[0]["confusion"] == figures[1]["confusion"]


def test_nothing_that_qualifies_is_said_and_written(gcnet_command, trained, photos, tmp_path):
    out = tmp_path / "same.safetensors"
    result = gcnet_command("simplify", trained, out, "--data", photos, "--max-error", 0)
    assert result.exit_code == 0, result.stderr
    assert "0 of 2 blocks replaced, 3 images to fit" in result.stdout
    assert "whole model" not in result.stdout
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(gcnet.load_checkpoint(out).model(x), gcnet.load_checkpoint(trained).model(x))


def test_what_cannot_be_simplified_is_one_line_and_exit_code_1(gcnet_command, run_folder, trained, photos, tmp_path):
    out = tmp_path / "s.safetensors"
    for arguments, said in (
        ((trained, tmp_path / "s.onnx", "--data", photos), "a checkpoint is a .safetensors file"),
        ((trained, tmp_path / "no" / "s.safetensors", "--data", photos), "does not exist; make it first"),
        ((trained, out), "is a file of weights, which names no images"),
        ((trained, out, "--data", photos, "--images", photos), "give one of the two"),
        ((trained, out, "--images", photos / "train" / "red" / "0.png"), "batches holds 1 image"),
        ((trained, out, "--data", photos, "--count", 1), "count=1: allowed are whole numbers from 2"),
        ((trained, out, "--data", photos, "--max-error", -1), "max_error=-1.0 is not allowed"),
        ((run_folder, out), "holds no non-local block"),
    ):
        result = gcnet_command("simplify", *arguments)
        assert result.exit_code == 1, arguments
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    assert not out.exists()
    assert gcnet_command("simplify", trained).exit_code == 2


def test_ctrl_c_writes_nothing(gcnet_command, trained, photos, tmp_path, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gcnet.recipes.simplification"], "read_image", interrupt)
    result = gcnet_command("simplify", trained, tmp_path / "s.safetensors", "--data", photos)
    assert result.exit_code == 1
    assert "interrupted; nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_scenes_are_named_and_the_result_goes_on_to_fold(tmp_path):
    model = gcnet.create_model("scenes", num_classes=6, block="nl")
    for block in gcnet.inserted(model).values():
        nn.init.normal_(block.out.weight, std=0.3)
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    done = simplify(tmp_path / "m.safetensors", tmp_path / "s.safetensors", data="cue", count=10, max_error=math.inf)
    assert (done.images, len(done.report.replaced), done.skipped) == (10, 2, {})
    assert done.speed_up is not None
    assert done.speed_up.low <= done.speed_up.value <= done.speed_up.high
    gcnet.recipes.fold(tmp_path / "s.safetensors", tmp_path / "f.safetensors")
    with pytest.raises(SettingsError, match="does not read photographs; name its scenes as data"):
        simplify(tmp_path / "m.safetensors", tmp_path / "s.safetensors", images=tmp_path)
    with pytest.raises(ValueError, match="it is folded"):
        simplify(tmp_path / "f.safetensors", tmp_path / "s.safetensors", data="cue", count=4)
