"""How long each command takes to start: CPU seconds and wall time until it opens the file of its model.

Each start is a process of its own, with and without Lightning and torchmetrics; with --before those of an older
checkout take turns with them: python benchmarks/start_up.py --before /path/to/old/src
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import gcnet
from gcnet.analysis.intervals import median_interval
from measure import rounded
from rows import Row, as_table, options, start, take

SRC = Path(gcnet.__file__).parents[1]
PROGRAM = """
import os, sys, time
model, absent = sys.argv[1], sys.argv[2]
for name in ("lightning", "pytorch_lightning", "torchmetrics") if absent == "absent" else ():
    sys.modules[name] = None
def stop():
    os.write(1, f"\\nSTARTED {time.process_time()} {time.monotonic()}".encode())
    os._exit(0)
def see(event, args):
    if event == "open" and isinstance(args[0], str | os.PathLike) and os.fspath(args[0]) == model:
        stop()
sys.addaudithook(see)
sys.argv = ["gcnet", *sys.argv[3:]]
from gcnet.cli import main
try:
    main()
except SystemExit as end:
    if not end.code:
        stop()
    raise
"""
COMMANDS = {
    "--help": (),
    "fold": ("MODEL", "OUT/f.safetensors"),
    "convert": ("MODEL", "OUT/c.safetensors"),
    "export": ("MODEL", "OUT/m.pt2"),
    "profile": ("MODEL",),
    "analyze": ("MODEL", "PHOTOS"),
    "predict": ("PHOTOS", "--weights", "MODEL"),
    "simplify": ("MODEL", "OUT/s.safetensors", "--images", "PHOTOS"),
    "evaluate": ("MODEL", "--data", "PHOTOS"),
    "train": ("--data", "PHOTOS", "--model", "timm/test_resnet", "--weights", "MODEL", "--runs", "OUT"),
    "compare": ("--data", "PHOTOS", "--model", "timm/test_resnet", "--weights", "MODEL", "--runs", "OUT"),
}


def prepare(folder: Path) -> None:
    """A tiny model with a non-local block, and two classes of three photographs."""
    model = gcnet.create_model("timm/test_resnet", num_classes=2, block="nl", stages=["c5"])
    gcnet.save_checkpoint(model, folder / "model.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        path = folder / "photos" / ("train", "val", "test")[index // 2] / ("a", "b")[index % 2] / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)


def begin(command: str, folder: Path, src: Path, absent: bool) -> tuple[float, float] | None:
    """CPU seconds and wall time of one start; None if it fails."""
    places = {"MODEL": folder / "model.safetensors", "PHOTOS": folder / "photos"}
    with tempfile.TemporaryDirectory() as out:
        words = [str(places.get(word, word.replace("OUT", out))) for word in COMMANDS[command]]
        arguments = [str(places["MODEL"]), "absent" if absent else "there", command, *words]
        environment = {**os.environ, "PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, env=environment, cwd=out
        )
    if done.returncode:
        return None
    cpu, ended = map(float, done.stdout.rpartition("STARTED ")[2].split())
    return cpu, ended - began


def measure(command: str, folder: Path, sources: dict[str, Path], rounds: int) -> Row:
    """Medians of all starts, in turns; the first of each fills the caches of the disk and is left out."""
    sides = [(name, absent) for name in sources for absent in (False, True)]
    found: dict[tuple[str, bool], list[tuple[float, float] | None]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for name, absent in sides:
            one = begin(command, folder, sources[name], absent)
            if turn:
                found[name, absent].append(one)
    row: Row = {}
    for (name, absent), starts in found.items():
        good = [one for one in starts if one is not None]
        key = f"{name}, without Lightning" if absent else name
        row[key] = None
        if len(good) == len(starts):
            cpu, wall = zip(*good, strict=True)
            row[key] = {"cpu_s": rounded(median_interval(list(cpu))), "wall_s": rounded(median_interval(list(wall)))}
    return row


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        sides = {key: value for key, value in row.items() if key not in ("case", "date")}
        for key, value in sides.items():
            before = sides.get(key.replace("after", "before"))
            share = "" if not value or not before or "after" not in key else _share(value, before)
            cells = "does not start | " if value is None else f"{_cell(value['cpu_s'])} | {_cell(value['wall_s'])}"
            lines.append(f"{row['case']} | {key} | {cells} | {share}")
    return as_table("command | package | CPU s | wall s | CPU over before", lines)


def _cell(value: Row) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _share(value: Row, before: Row) -> str:
    return f"{value['cpu_s']['median'] / before['cpu_s']['median']:.2f}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--before", type=Path, help="the folder src of an older checkout, measured in turns with this")
    arguments = start(parser)
    sources = {"after": SRC} if arguments.before is None else {"before": arguments.before, "after": SRC}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        rounds = max(2, round(6 * arguments.effort))
        cases: dict[str, Callable[[], Row]] = {
            command: partial(measure, command, Path(folder), sources, rounds) for command in COMMANDS
        }
        take("start_up", "Start of each command", cases, table, only=arguments.only)


if __name__ == "__main__":
    main()
