"""What every benchmark needs: interleaved rounds, peak memory, a note of the machine, results files."""

import ctypes
import datetime
import gc
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import gcnet
from gcnet.analysis.intervals import Median, median_interval

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Hardware, versions and date, for a results file."""
    with open("/proc/cpuinfo") as cpus:
        model = next(
            (line.split(":")[1].strip() for line in cpus if line.startswith("model name")), platform.processor()
        )
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "gcnet": gcnet.__version__,
        "python": platform.python_version(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "date": datetime.date.today().isoformat(),
    }


def speed_up(seconds: Mapping[str, list[float]], ours: str, theirs: str) -> Median:
    """How many times faster ours is, from the ratios inside the rounds."""
    return median_interval([b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)])


def peak_extra_megabytes(function: Callable[[], Any]) -> float:
    """Highest resident memory during one call above that before it (Linux); what the call returns is counted."""
    function()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    kept = function()
    peak = _status("VmHWM")
    del kept
    return (peak - before) / 1024


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def rounded(value: Median) -> dict[str, float]:
    return {"median": round(value.value, 4), "low": round(value.low, 4), "high": round(value.high, 4), "n": value.count}


def write(name: str, rows: list[dict[str, Any]], about: str, markdown: str) -> None:
    """`results/NAME.json` and `results/NAME.md`."""
    RESULTS.mkdir(exist_ok=True)
    data = {"about": about, "environment": environment(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    machine = ", ".join(f"{key} {value}" for key, value in data["environment"].items() if value is not None)
    (RESULTS / f"{name}.md").write_text(f"# {about}\n\n{machine}\n\n{markdown}\n")
    print(markdown, f"\nwrote {RESULTS / name}.json and .md")
