"""save_checkpoint and load_checkpoint: the same model comes back; anything else is refused in words."""

import errno
import json
import os
import pickle
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import gcnet
from gcnet.blocks import GlobalContext
from gcnet.surgery import record

TINY = "timm/test_resnet"


@pytest.fixture
def model():
    model = gcnet.create_model(TINY, num_classes=3, block="gc", stages=["c4", "c5"], reduction=4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    record.set_classes(model, ["cat", "dog", "été"])
    return model.eval()


def _rewritten(path, **changes):
    """The same tensors with another header."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["gcnet"])
    tensors = load_file(path)
    save_file(tensors, path, {"gcnet": json.dumps(header | changes)})


def test_a_saved_model_comes_back_with_its_outputs_and_records(model, tmp_path):
    gcnet.save_checkpoint(model.to(memory_format=torch.channels_last), tmp_path / "m.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors")
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, loaded.model.state_dict()[key]) for key, value in model.state_dict().items())
    assert not loaded.model.training
    assert loaded.classes == ["cat", "dog", "été"] == record.classes(loaded.model)
    assert loaded.preprocessing == record.preprocessing(model) == record.preprocessing(loaded.model)
    assert loaded.architecture["name"] == TINY
    assert loaded.architecture["assumed"] == []
    assert loaded.architecture["rewrites"] == record.rewrites(model) == record.rewrites(loaded.model)
    assert list(gcnet.inserted(loaded.model)) == list(gcnet.inserted(model))


def test_the_model_of_scenes_comes_back(tmp_path):
    model = gcnet.create_model("scenes", num_classes=6, block="nl").eval()
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors")
    x = torch.rand(2, 1, 48, 48)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model(x), model(x), strict=True))
    assert loaded.preprocessing is None


def test_half_precision_weights_stay_so(model, tmp_path):
    gcnet.save_checkpoint(model.half(), tmp_path / "m.safetensors")
    assert gcnet.load_checkpoint(tmp_path / "m.safetensors").model.fc.weight.dtype == torch.float16


def test_the_header_says_what_the_design_asks(model, tmp_path):
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["gcnet"])
    assert set(header) == {"format", "model", "rewrites", "classes", "preprocessing", "versions"}
    assert header["format"] == 1
    assert {"gcnet", "torch", "timm"} <= set(header["versions"])


def test_a_model_of_the_users_own_is_filled_through_architecture(tmp_path):
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    model = gcnet.insert(plain, "gc", at="0", reduction=2)
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match="does not say how its model is built"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")
    for given in (plain, model):
        loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=given)
        x = torch.randn(1, 3, 8, 8)
        assert torch.equal(loaded.model(x), model.eval()(x))
    other = gcnet.insert(plain, "se", at="0", reduction=2)
    with pytest.raises(gcnet.CheckpointError, match="pass the plain model"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=other)


def test_a_block_given_as_a_callable_needs_the_model_itself(tmp_path):
    plain = nn.Sequential(nn.Conv2d(3, 8, 3))
    model = gcnet.insert(plain, partial(GlobalContext, reduction=2), at="0")
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match="as a callable"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=plain)
    assert gcnet.load_checkpoint(tmp_path / "m.safetensors", architecture=model).model is not model


def test_shared_and_transposed_tensors_are_saved(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    model["b"].weight = model["a"].weight
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    assert torch.equal(load_file(tmp_path / "m.safetensors")["b.weight"], model["a"].weight)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty: the download or the disk failed"),
        (b"<html><body>Not found</body></html>", "web page saved under this name"),
        (pickle.dumps({"a": 1}), "truncated or damaged"),
        (b"plain text, nothing else", "neither a safetensors file nor"),
    ],
)
def test_other_files_are_refused_for_what_they_are(tmp_path, content, match):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(gcnet.CheckpointError, match=match):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")


def test_tensors_of_no_known_model_are_refused_or_fill_the_model_that_is_given(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3))
    torch.save(model.state_dict(), tmp_path / "m.pth")
    with pytest.raises(gcnet.CheckpointError, match=r"its 2 tensors are those of no model .* with 0\.weight, 0\.bias"):
        gcnet.load_checkpoint(tmp_path / "m.pth")
    other = nn.Sequential(nn.Linear(2, 3))
    assert torch.equal(gcnet.load_checkpoint(tmp_path / "m.pth", architecture=other).model[0].weight, model[0].weight)
    with pytest.raises(gcnet.CheckpointError, match=r"does not fit the model that was given: .*1 missing: 1\.weight"):
        gcnet.load_checkpoint(tmp_path / "m.pth", architecture=nn.Sequential(nn.Linear(2, 3), nn.PReLU()))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_called_so(model, tmp_path, share):
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(gcnet.CheckpointError, match="truncated or damaged"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match="is a folder"):
        gcnet.load_checkpoint(tmp_path)


def test_a_safetensors_file_of_others_is_told_from_ours(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match="its 1 tensors are those of no model that gcnet recognises"):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "is of format 2, this gcnet reads format 1: it was written by a newer gcnet"),
        ({"format": "one"}, "header is damaged"),
        ({"rewrites": None}, "entry 'rewrites' is missing or of a wrong kind"),
        ({"model": {"name": "resnet9000", "num_classes": 3}}, "cannot be built here .*resnet9000"),
        ({"rewrites": [{"rewrite": "levitate"}]}, "does not know: .*levitate"),
        ({"rewrites": [{"rewrite": "insert", "block": "gcc"}]}, "cannot be replayed .*gcc"),
    ],
)
def test_a_header_that_cannot_be_used_is_named(model, tmp_path, changes, match):
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    _rewritten(tmp_path / "m.safetensors", **changes)
    with pytest.raises(gcnet.CheckpointError, match=match):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")


def test_missing_unknown_and_misshapen_tensors_are_listed_together(model, tmp_path):
    path = tmp_path / "m.safetensors"
    gcnet.save_checkpoint(model, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["extra"] = tensors.pop("fc.bias")
    tensors["fc.weight"] = tensors["fc.weight"][:2].clone()
    save_file(tensors, path, metadata)
    with pytest.raises(
        gcnet.CheckpointError,
        match=r"1 missing: fc\.bias; 1 unknown to the model: extra; 1 of another shape: fc\.weight \[2, ",
    ):
        gcnet.load_checkpoint(path)


def test_a_full_disk_leaves_the_older_checkpoint_intact(model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    gcnet.save_checkpoint(model, path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full; the older file is intact"):
        gcnet.save_checkpoint(model, path)
    assert path.read_bytes() == before
