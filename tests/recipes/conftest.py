"""Tiny photographs of two classes that a network can tell apart, and settings that train on them in a second."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gcnet.recipes import Settings


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """12 + 4 + 4 PNGs of 40x40 in train, val and test; reddish and bluish."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for channel, name in enumerate(("red", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., 2 * channel] += 120
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture
def settings(photos, tmp_path):
    """Two epochs of three batches of the smallest model."""
    return Settings(
        data=str(photos),
        model="timm/test_resnet",
        block="gc",
        stages=("c5",),
        block_options={"reduction": 4},
        epochs=2,
        batch_size=4,
        image_size=32,
        runs=tmp_path,
    )


@pytest.fixture
def changed(settings):
    return lambda **changes: replace(settings, **changes)
