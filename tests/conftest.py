"""Fixtures that every test may use."""

import os
from pathlib import Path

if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # no GPU: Triton, which reads this when imported, runs in Python

import pytest
import torch

SHARED = Path(os.environ.get("GCNET_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_worker():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of outputs of the published code and of real images; tests that need it skip where it is absent."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("the reference outputs and images are not on this machine")
    return SHARED
