"""A file is there whole or not at all; the older one survives a full disk."""

import errno
import os

import pytest

from gcnet.files.atomic import write_atomically, write_text


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "é")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_a_full_disk_is_said_and_the_older_file_is_intact(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def half(file):
        file.write(b"new, but only ha")
        _full()

    with pytest.raises(OSError, match=r"a\.txt: the disk is full; the older file is intact") as caught:
        write_atomically(tmp_path / "a.txt", half)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_disk_that_fills_up_at_the_flush_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="the disk is full; nothing was left behind"):
        write_text(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_behind_another_error_is_still_the_reason(tmp_path):
    def as_torch_save_does(file):
        try:
            _full()
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(tmp_path / "a.txt", as_torch_save_does)


def test_an_error_of_the_writer_itself_is_passed_on(tmp_path):
    with pytest.raises(KeyError, match="x"):
        write_atomically(tmp_path / "a.txt", lambda file: {}["x"])
    assert list(tmp_path.iterdir()) == []
