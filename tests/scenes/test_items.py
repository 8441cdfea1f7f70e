"""Pictures from a package or a folder: absence and damage are said in one line with the way out."""

import gzip
import struct

import numpy as np
import pytest

from gcnet.errors import ItemsError
from gcnet.scenes import items
from gcnet.scenes.items import load_items


@pytest.fixture(autouse=True)
def _fresh():
    yield
    load_items.cache_clear()
    items._read_digits.cache_clear()


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels)))
    monkeypatch.setenv("GCNET_FASHION_MNIST", str(tmp_path))
    load_items.cache_clear()
    return tmp_path


def test_fashion_is_read_from_plain_and_compressed_idx_files(fashion):
    train, test = load_items("fashion", "train"), load_items("fashion", "test")
    assert train.images.shape == (30, 28, 28)
    assert test.labels.tolist() == [*range(10)] * 2
    content = (fashion / "train-images-idx3-ubyte").read_bytes()
    assert train.images[0].tobytes() == content[16 : 16 + 784]
    assert train.names[9] == "ankle boot"


def test_a_truncated_idx_file_is_named(fashion):
    path = fashion / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ItemsError, match="train-images-idx3-ubyte is not an idx file"):
        load_items("fashion", "train")


def test_an_absent_idx_file_is_named(fashion):
    (fashion / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ItemsError, match=r"lacks t10k-labels-idx1-ubyte\[.gz\]"):
        load_items("fashion", "test")


def test_absent_fashion_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("GCNET_FASHION_MNIST", str(tmp_path))
    with pytest.raises(ItemsError, match=r"set GCNET_FASHION_MNIST to a folder .* apt install dataset-fashion-mnist"):
        load_items("fashion", "train")


def test_a_missing_package_gives_the_install_hint(monkeypatch):
    items._read_digits.cache_clear()
    load_items.cache_clear()
    monkeypatch.setattr(items, "find_spec", lambda name: None)
    with pytest.raises(ItemsError, match=r'pip install "gcnet\[demo\]"'):
        load_items("digits", "train")


def test_a_damaged_package_says_so(tmp_path, monkeypatch):
    items._read_digits.cache_clear()
    load_items.cache_clear()
    (tmp_path / "data" / "data").mkdir(parents=True)
    (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(b"not gzip")
    monkeypatch.setattr(
        items, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})()
    )
    with pytest.raises(ItemsError, match=r"cannot be read .*force-reinstall"):
        load_items("digits", "train")
