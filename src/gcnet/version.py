"""Which gcnet this is, which packages decide what it computes, and on what machine it runs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """The versions of gcnet and of the packages that decide what a model computes."""
    found = {"gcnet": __version__}
    for package in ("torch", "torchvision", "timm", "lightning"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # lightning is an extra
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, number of cores, threads of torch, names of the GPUs."""
    import torch

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
