"""Reading files of tensors."""

import argparse

import pytest
import torch
from safetensors.torch import save_file

from gcnet.errors import CheckpointError
from gcnet.files.tensors import plain_names, read


def test_tensors_read_lie_at_addresses_like_those_of_new_ones(tmp_path):
    # In the file they follow each other without gaps; read in place, a model would compute other last digits.
    tensors = {f"{i}": torch.full((i,), float(i)) for i in range(1, 9)}
    save_file(tensors, tmp_path / "odd.safetensors")
    found = read(tmp_path / "odd.safetensors").tensors
    assert {key: value.tolist() for key, value in found.items()} == {
        key: value.tolist() for key, value in tensors.items()
    }
    assert all(value.data_ptr() % 64 == 0 for value in found.values())


def test_the_suffix_is_not_asked(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "m.pth")
    for name in ("m.safetensors", "m.pth"):
        assert torch.equal(read(tmp_path / name).tensors["a"], torch.ones(2))


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_tensors_are_found_beside_what_a_trainer_had_at_hand(tmp_path, wrapper):
    arguments = argparse.Namespace(lr=0.1, data="/data")
    torch.save({wrapper: {"module.a": torch.ones(1)}, "args": arguments, "epoch": 3}, tmp_path / "m.pth")
    assert read(tmp_path / "m.pth").plain == {"a": torch.ones(1)}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
def test_what_wrappers_put_before_all_names_is_left_out(prefix):
    assert list(plain_names({f"{prefix}a": torch.ones(1), f"{prefix}module.b": torch.ones(1)})) == ["a", "module.b"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([torch.ones(1)], "holds no state_dict: expected a table of named tensors"),
        ({}, "holds no state_dict"),
        ({"a": torch.ones(1), "b": 3}, "1 entries of its state_dict are no tensors: b"),
    ],
)
def test_what_holds_no_table_of_tensors_is_refused(tmp_path, content, match):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=match):
        read(tmp_path / "m.pth")
