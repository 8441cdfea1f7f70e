"""How calls wander through the house: stays, files and steps up on four routes. Public names only.

    python benchmarks/routes.py [--only load_checkpoint] [--show]

Call events of `sys.setprofile` whose code lies in `src/gcnet`; a stay is a run of them in one file; a step up goes from
a file to one in a room above (`LAYERS`). Loops count. All modules are imported before, and each route has a process of
its own, so that neither imports nor caches hang on what ran earlier.
"""

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gcnet

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "gcnet"
SHARED = Path(os.environ.get("GCNET_SHARED", ROOT.parent / "shared"))
# The order of the rooms is that of the contract; what has no folder of its own is a corridor, and counts for nothing.
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
HEIGHT = {
    room.strip().removeprefix("gcnet."): height
    for height, layer in enumerate(reversed(LAYERS["layers"][: LAYERS["layers"].index("gcnet.files")]), start=1)
    for room in layer.split("|")
}


def insert_to_export(folder: Path) -> Callable[[], Any]:
    import torch
    import torchvision

    try:
        from gcnet.exporters.program import export_program
    except ImportError:  # up to version 0.1.0
        from gcnet.rewrites.export import export_program

    model = torchvision.models.resnet18().eval()
    images = torch.rand(1, 3, 64, 64)

    def route() -> None:
        inserted = gcnet.insert(model, "gc")
        inserted(images)
        folded = gcnet.fold(inserted)
        folded(images)
        export_program(folded, input_size=(3, 64, 64))

    return route


def load_checkpoint(folder: Path) -> Callable[[], Any]:
    path = next((SHARED / "fixtures" / "detectors").glob("a_mask_*")) / "checkpoint.pth"
    return lambda: gcnet.load_checkpoint(path)


def analyze(folder: Path) -> Callable[[], Any]:
    import torch
    import torchvision

    model = gcnet.insert(torchvision.models.resnet18(), "nl", stages=("c4",)).eval()
    images = torch.rand(2, 3, 64, 64)
    return lambda: gcnet.analyze(model, images)


def train(folder: Path) -> Callable[[], Any]:
    import numpy as np
    from PIL import Image

    from gcnet.recipes import Settings, train

    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    settings = Settings(
        data=str(folder), model="resnet18", block="gc", epochs=1, batch_size=4, image_size=32, runs=folder / "runs"
    )
    return lambda: train(settings, progress=False)


def import_all() -> None:
    """Every module of gcnet: what is imported on the way is no part of a route."""
    for module in pkgutil.walk_packages(gcnet.__path__, "gcnet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


ROUTES = {
    "insert to export": insert_to_export,
    "load_checkpoint": load_checkpoint,
    "analyze": analyze,
    "train": train,
}


def room(file: str) -> str:
    """The folder below `src/gcnet` that a file is in; "" for a corridor."""
    first = file.partition("/")[0]
    return first if first in HEIGHT else ""


def record(call: Callable[[], Any]) -> list[str]:
    """The files of `src/gcnet` that a call enters, one after the other; equal neighbours are one stay."""
    stays: list[str] = []
    prefix = f"{SRC}/"

    def see(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            file = frame.f_code.co_filename.removeprefix(prefix)
            if not stays or stays[-1] != file:
                stays.append(file)

    sys.setprofile(see)
    try:
        call()
    finally:
        sys.setprofile(None)
    return stays


def figures(stays: list[str]) -> tuple[int, int, int]:
    """Stays, files, steps up; `gcnet/__init__.py`, which hands out names, is in no room."""
    up = sum(HEIGHT.get(room(b), 0) > HEIGHT.get(room(a), 0) for a, b in pairwise(stays) if "__init__.py" not in (a, b))
    return len(stays), len(set(stays)), up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROUTES)
    parser.add_argument("--show", action="store_true", help="also the files, with the number of stays in each")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.here:
        print("| route | stays | files | steps up |\n|---|---|---|---|", flush=True)
        for name in [chosen.only] if chosen.only else ROUTES:
            show = ["--show"] if chosen.show else []
            subprocess.run([sys.executable, __file__, "--here", "--only", name, *show], check=True)
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        import_all()
        stays = record(ROUTES[chosen.only](Path(folder)))
    print(f"| {chosen.only} |", " | ".join(f"{value:,}" for value in figures(stays)), "|")
    if chosen.show:
        for file, count in Counter(stays).most_common():
            print(f"    {count:5}  {file}")


if __name__ == "__main__":
    main()
