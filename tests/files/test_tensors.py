"""Reading files of tensors."""

import torch
from safetensors.torch import save_file

from gcnet.files.tensors import read_safetensors


def test_tensors_read_lie_at_addresses_like_those_of_new_ones(tmp_path):
    # In the file they follow each other without gaps; read in place, a model would compute other last digits.
    tensors = {f"{i}": torch.full((i,), float(i)) for i in range(1, 9)}
    save_file(tensors, tmp_path / "odd.safetensors")
    read, _ = read_safetensors(tmp_path / "odd.safetensors")
    assert {key: value.tolist() for key, value in read.items()} == {
        key: value.tolist() for key, value in tensors.items()
    }
    assert all(value.data_ptr() % 64 == 0 for value in read.values())
