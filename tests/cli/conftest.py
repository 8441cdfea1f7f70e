"""The command line, run in this process, and tiny photographs to run it on."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gcnet.cli import app


@pytest.fixture
def gcnet_command(monkeypatch):
    """Run `gcnet ARGUMENTS...`: a result with exit_code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="gcnet")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """4 + 2 + 2 PNGs of 40x40 in train, val and test; reddish and bluish."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for channel, name in enumerate(("red", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., 2 * channel] += 120
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def run_folder(photos, tmp_path_factory):
    """A finished run of one epoch."""
    from gcnet.recipes import Settings, train

    settings = Settings(
        data=str(photos),
        model="timm/test_resnet",
        block="gc",
        stages=("c5",),
        block_options={"reduction": 4},
        epochs=1,
        batch_size=4,
        image_size=32,
        runs=tmp_path_factory.mktemp("runs"),
    )
    return train(settings).folder
