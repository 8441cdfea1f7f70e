"""Reading files that nobody should trust: nothing in them runs, and each is told for what it is."""

import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

import gcnet
from gcnet.errors import CheckpointError
from gcnet.files.kinds import check_file
from gcnet.files.unpickle import STAND_INS, Inert, unpickle


class Evil:
    """Its pickle runs a command when a plain unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["zip", "2020", "bare pickle"])
def test_a_malicious_pickle_is_refused_by_name_and_runs_nothing(tmp_path, how):
    path, victim = tmp_path / "m.pth", tmp_path / "ran"
    content = {"state_dict": {"a": torch.ones(1)}, "meta": Evil(f"touch {victim}")}
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(Evil(f"touch {victim}")))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(gcnet.CheckpointError, match=r"it asks for (posix|nt)\.system, .* nothing in it was run"):
        gcnet.load_checkpoint(path)
    assert not victim.exists()
    if how == "2020":  # the file does what this test says: a reader that trusts it runs the command
        torch.load(path, weights_only=False)
        assert victim.exists()


def test_getattr_in_a_file_is_not_the_real_one(tmp_path):
    class Reaching:
        def __reduce__(self):
            return getattr, (torch.Tensor, "mean")

    torch.save({"state_dict": {"a": torch.ones(1)}, "meta": Reaching()}, tmp_path / "m.pth")
    found = unpickle(tmp_path / "m.pth")
    assert type(found["meta"]) is Inert
    assert torch.equal(found["state_dict"]["a"], torch.ones(1))
    assert getattr not in STAND_INS.values()


def test_what_trainers_leave_in_files_is_read_as_nothing(tmp_path, monkeypatch):
    module = types.ModuleType("mmengine.logging.history_buffer")
    kind = type("HistoryBuffer", (), {"__module__": module.__name__, "mean": lambda self: 0})
    module.HistoryBuffer = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    buffer = kind()
    buffer.history, buffer.method, buffer.value = np.arange(3.0), buffer.mean, np.float64(1)
    torch.save({"message_hub": {"loss": buffer}, "state_dict": {"a": torch.ones(2)}}, tmp_path / "m.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "m.pth", weights_only=True)
    monkeypatch.undo()
    found = unpickle(tmp_path / "m.pth")
    assert type(found["message_hub"]["loss"]) is Inert
    assert found["message_hub"]["loss"].__dict__ == {}
    assert torch.equal(found["state_dict"]["a"], torch.ones(2))


def test_a_stand_in_does_nothing_whatever_is_asked():
    thing = Inert(1, key=2)
    thing.__setstate__({"history": 3})
    assert vars(thing) == {}


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("new", [True, False])
def test_a_cut_file_is_called_truncated(tmp_path, share, new):
    path = tmp_path / "m.pth"
    torch.save({"a": torch.randn(64, 64)}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="is truncated"):
        gcnet.load_checkpoint(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(8 << 20))
    with pytest.raises(CheckpointError, match=r"unpack to 8,388,[0-9]+; torch.save does not compress, .* a zip bomb"):
        gcnet.load_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: the download or the disk failed"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page saved under this name"),
        (b'{"message": "Not Found"}', "is JSON, perhaps the error message of a server"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (bytes(2048), "begins with zeros"),
        (b"BM" + b"\xff" * 100, "neither a safetensors file nor one written by torch.save"),
    ],
)
def test_other_files_are_told_for_what_they_are(tmp_path, content, message):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        gcnet.load_checkpoint(tmp_path / "m.pth")


def test_other_zip_archives_are_told_for_what_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("photo.jpg", b"1")
    with pytest.raises(CheckpointError, match=r"is a zip archive of other files \(photo\.jpg\)"):
        check_file(tmp_path / "m.pth")
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("m/constants.pkl", b"1")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        check_file(tmp_path / "m.pth")


def test_a_hash_in_the_name_is_checked(tmp_path):
    path = tmp_path / "resnet-c550c707.pth"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.warns(UserWarning, match=r"its SHA-256 begins with [0-9a-f]{8}, the name says c550c707"):
        check_file(path)
    with pytest.raises(CheckpointError, match="not the file that its name promises"):
        gcnet.load_checkpoint(path, strict=True)
    dated = path.rename(tmp_path / "resnet-20200515.pth")  # a date is no hash
    assert check_file(dated, strict=True) == "pickle"
