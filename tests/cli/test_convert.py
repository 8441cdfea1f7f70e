"""`gcnet convert`."""

import warnings

import torch
import torchvision
from typer.testing import CliRunner

import gcnet
from gcnet.cli import app


def test_it_says_what_it_read_assumed_and_wrote(tmp_path):
    source, out = tmp_path / "m.pth", tmp_path / "m.safetensors"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), source)
    result = CliRunner().invoke(app, ["convert", str(source), str(out)])
    assert result.exit_code == 0, result.output
    for words in ("(torchvision), 122 tensors, all of them used", "resnet18, 3 classes", "assumed: model:", "written:"):
        assert words in result.output
    assert gcnet.load_checkpoint(out).architecture["name"] == "resnet18"


def test_a_wrong_hash_is_a_note_and_with_strict_an_error(tmp_path):
    source, out = tmp_path / "m-01234567.pth", tmp_path / "m.safetensors"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), source)
    result = CliRunner().invoke(app, ["convert", str(source), str(out), "--strict"])
    assert result.exit_code == 1
    assert "gcnet: " in result.output
    assert "the name says 01234567" in result.output
    assert not out.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(app, ["convert", str(source), str(out)])
    assert result.exit_code == 0
    assert "gcnet: note: " in result.output
