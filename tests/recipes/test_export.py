"""export and fold as recipes: from a run, a checkpoint or a model to a file that was compared with PyTorch."""

import json
import sys

import pytest
import torch
from torch import nn

import gcnet
from gcnet.errors import SettingsError
from gcnet.exporters.check import CannotRun, check_onnx
from gcnet.exporters.table import EXPORTERS
from gcnet.files import atomic
from gcnet.recipes import export, fold, predict
from gcnet.rewrites import RewriteError
from gcnet.surgery import record

SIZE = [32, 32]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    model = gcnet.create_model("timm/test_resnet", num_classes=3, block="gc", stages=["c5"], reduction=4)
    for block in gcnet.inserted(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
    record.set_preprocessing(model, record.preprocessing(model) | {"size": SIZE, "resize": 36})
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    gcnet.save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def folded(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("folded") / "f.safetensors"
    return fold(weights, path)


def _program(path):
    extra = {"gcnet.architecture": ""}
    program = torch.export.load(path, extra_files=extra).module()
    return program, [rewrite["rewrite"] for rewrite in json.loads(extra["gcnet.architecture"])["rewrites"]]


def test_a_checkpoint_is_folded_exported_and_compared(weights, tmp_path):
    written = export(weights, tmp_path / "m.PT2", dynamic="batch")
    assert written.folded
    assert written.unfolded_because is None
    assert written.input_size == (3, 32, 32)
    assert list(written.agreement.errors) == [(1, 3, 32, 32), (3, 3, 32, 32)]
    assert written.size == (tmp_path / "m.PT2").stat().st_size
    program, rewrites = _program(tmp_path / "m.PT2")
    assert rewrites == ["insert", "fold"]
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(program(x), gcnet.load_checkpoint(weights).model(x), rtol=1e-4, atol=1e-5)


def test_folding_can_be_left_out(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for fold_first, rewrites in ((False, []), (True, ["fold"]), (None, ["fold"])):
        written = export(model, tmp_path / "m.pt2", fold=fold_first, input_size=(3, 8, 8), dynamic=False)
        assert written.folded == bool(rewrites)
        assert _program(tmp_path / "m.pt2")[1] == rewrites


def test_a_model_that_cannot_be_folded_is_exported_as_it_is_unless_folding_was_asked_for(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    written = export(model, tmp_path / "m.pt2", input_size=(3, 8, 8), dynamic=False)
    assert not written.folded
    assert "has no running statistics" in written.unfolded_because
    with pytest.raises(RewriteError, match="has no running statistics"):
        export(model, tmp_path / "n.pt2", input_size=(3, 8, 8), fold=True)
    assert not (tmp_path / "n.pt2").exists()


def test_a_file_that_differs_is_not_written_and_an_older_one_stays(tmp_path, monkeypatch):
    def wrong(content, model, **arguments):
        raise RewriteError("the exported model differs")

    (tmp_path / "m.pt2").write_text("older")
    monkeypatch.setitem(EXPORTERS, ".pt2", (lambda model, **arguments: b"new", wrong))
    with pytest.raises(RewriteError, match="differs"):
        export(nn.Conv2d(3, 4, 1), tmp_path / "m.pt2", input_size=(3, 8, 8))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("m.pt2", "older")]


def test_a_file_that_cannot_be_run_here_is_written_and_said(tmp_path, monkeypatch):
    def cannot(content, model, **arguments):
        raise CannotRun("no kernel")

    monkeypatch.setitem(EXPORTERS, ".onnx", (lambda model, **arguments: b"new", cannot))
    written = export(nn.Conv2d(3, 4, 1), tmp_path / "m.onnx", input_size=(3, 8, 8))
    assert (written.agreement, written.unchecked_because) == (None, "no kernel")
    assert (tmp_path / "m.onnx").read_bytes() == b"new"
    monkeypatch.setitem(EXPORTERS, ".onnx", (lambda model, **arguments: b"new", check_onnx))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    written = export(nn.Conv2d(3, 4, 1), tmp_path / "m.onnx", input_size=(3, 8, 8))
    assert 'onnxruntime is not installed: pip install "gcnet[export]"' in written.unchecked_because


def test_what_cannot_be_exported_is_refused_before_anything_is_done(weights, folded, tmp_path):
    with pytest.raises(SettingsError, match=r"the suffix says the format; allowed are \.onnx, \.pt2"):
        export(weights, tmp_path / "m.tflite")
    with pytest.raises(SettingsError, match=r"the folder .*missing does not exist; make it first"):
        export(weights, tmp_path / "missing" / "m.pt2")
    (tmp_path / "d.pt2").mkdir()
    with pytest.raises(SettingsError, match="is a folder; name the file"):
        export(weights, tmp_path / "d.pt2")
    with pytest.raises(SettingsError, match=r"input_size=None: .* give channels and size"):
        export(nn.Conv2d(3, 4, 1), tmp_path / "m.pt2")
    with pytest.raises(SettingsError, match="fold=False: this model is folded already"):
        export(folded.path, tmp_path / "m.pt2", fold=False)
    (tmp_path / "page.safetensors").write_text("<html>Not found</html>")
    with pytest.raises(gcnet.CheckpointError, match="is a web page saved under this name"):
        export(tmp_path / "page.safetensors", tmp_path / "m.pt2")
    with pytest.raises(FileNotFoundError):
        export(tmp_path / "no.safetensors", tmp_path / "m.pt2")
    assert not (tmp_path / "m.pt2").exists()


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        export(nn.Conv2d(3, 4, 1), tmp_path / "m.pt2", input_size=(3, 8, 8), dynamic=False)
    assert not list(tmp_path.iterdir())


def test_a_folded_checkpoint_predicts_what_the_model_predicts_and_exports(weights, folded, photos, tmp_path):
    assert folded.tensors[1] < folded.tensors[0]
    assert 0 < folded.difference < 1e-5
    before, after = (predict(path, photos / "test") for path in (weights, folded.path))
    assert len(before) == 4
    for a, b in zip(before, after, strict=True):
        assert a["class"] == b["class"]
        assert a["score"] == pytest.approx(b["score"], rel=1e-4)
    assert export(folded.path, tmp_path / "m.pt2", dynamic=False).folded


def test_what_cannot_be_folded_is_refused(weights, folded, tmp_path):
    with pytest.raises(SettingsError, match=r"a checkpoint is a \.safetensors file"):
        fold(weights, tmp_path / "f.onnx")
    with pytest.raises(SettingsError, match="does not exist; make it first"):
        fold(weights, tmp_path / "missing" / "f.safetensors")
    with pytest.raises(SettingsError, match="is folded already"):
        fold(folded.path, tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())
