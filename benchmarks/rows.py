"""Taking a long table row by row: a part at a time, written as it grows, nothing lost to an interruption."""

import argparse
import datetime
import fnmatch
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gcnet.analysis.intervals import Median, median_interval
from gcnet.files.atomic import write_text
from measure import RESULTS, environment, rounded

Row = dict[str, Any]
Seconds = Mapping[str, list[float]]
INTERVALS = "Medians with 95 % intervals (fewer than 6 rounds: the extremes); ratios are taken inside the rounds."
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def options(about: str | None, only: str = "*") -> argparse.ArgumentParser:
    """The options that all these scripts have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=only, help=f"take only the rows whose name fits this glob (default: {only})")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the time given to each row (default: 1)")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and prepare the process: two threads, which sleep while they wait, and a fixed seed."""
    arguments = parser.parse_args()
    if os.environ.get("OMP_WAIT_POLICY") != "PASSIVE":
        parser.error("set OMP_WAIT_POLICY=PASSIVE in the environment: spinning threads disturb what is timed next")
    if arguments.effort <= 0:
        parser.error(f"--effort {arguments.effort} must be greater than 0")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    return arguments


def take(
    name: str,
    about: str,
    cases: Mapping[str, Callable[[], Row]],
    table: Callable[[list[Row]], str],
    *,
    only: str = "*",
    folder: Path = RESULTS,
) -> list[Row]:
    """Measure the cases chosen by `only`, and write `NAME.json` and `NAME.md` after each of them.

    Rows already in the file stay there until they are measured again, if the same machine and versions took them.
    Ctrl-C ends the script; what was finished is in the files.

    Args:
        name: of the files.
        about: their title.
        cases: name -> what measures that row, all the script knows, in the order of the table.
        table: rows -> Markdown; called with the new row alone, and with all of them.
        only: a glob over the names of the cases.
        folder: where the files go.

    Returns:
        All rows in the files.
    """
    chosen = fnmatch.filter(cases, only)
    if not chosen:
        raise SystemExit(f"--only {only!r} fits no row; the rows are:\n" + "\n".join(cases))
    machine = {
        **environment(),
        **{package: importlib.metadata.version(package) for package in ("torchvision", "timm", "mmcv-lite")},
    }
    rows = _earlier(folder / f"{name}.json", machine)
    i, began = 0, time.perf_counter()
    try:
        for i, case in enumerate(chosen):
            print(f"\n[{i + 1}/{len(chosen)}] {case}", flush=True)
            rows[case] = {"case": case, "date": datetime.date.today().isoformat(), **cases[case]()}
            print(table([rows[case]]), flush=True)
            ordered = [rows[case] for case in cases if case in rows]
            _write(folder / name, about, machine, ordered, table(ordered))
    except KeyboardInterrupt:
        print(f"\ninterrupted after {i} of {len(chosen)} rows, which are in {folder / name}.json and .md")
        raise SystemExit(130) from None
    print(f"\nwrote {folder / name}.json and .md after {(time.perf_counter() - began) / 60:.1f} minutes")
    return [rows[case] for case in cases if case in rows]


def _earlier(path: Path, machine: Row) -> dict[str, Row]:
    if not path.exists():
        return {}
    data = json.loads(path.read_text())
    others = [key for key in {*machine, *data["environment"]} if key != "date"]
    changed = [key for key in others if machine.get(key) != data["environment"].get(key)]
    if changed:
        print(f"{path}: its rows were taken with another {', '.join(sorted(changed))} and are left out")
        return {}
    return {row["case"]: row for row in data["rows"]}


def _write(path: Path, about: str, machine: Row, rows: list[Row], markdown: str) -> None:
    data = {"about": about, "environment": machine, "rows": rows}
    items = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    texts = {".json": json.dumps(data, indent=1) + "\n", ".md": f"# {about}\n\n{items}\n\n{markdown}\n"}
    for suffix, text in texts.items():
        write_text(path.with_suffix(suffix), text)  # Ctrl-C while writing leaves the earlier file whole


def milliseconds(seconds: list[float]) -> Median:
    return median_interval([value * 1e3 for value in seconds])


def time_over(seconds: Seconds, name: str, base: str) -> Median:
    """Time of one over that of the other, from the ratios inside the rounds."""
    return median_interval([a / b for a, b in zip(seconds[name], seconds[base], strict=True)])


def reached(value: Mapping[str, float], goal: float) -> str:
    """Whether a figure that should be low reached its goal; it counts as met when its interval reaches it."""
    if value["n"] < 6:
        return "too few rounds"  # to have an interval
    if value["median"] <= goal:
        return "met"
    return "met by the interval" if value["low"] <= goal else "missed"


def ms_cell(value: Mapping[str, float]) -> str:
    digits = 0 if value["median"] >= 1000 else 1 if value["median"] >= 100 else 2
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def percent_cell(ratio: Mapping[str, float]) -> str:
    """A ratio of times as what it is above 1."""
    median, low, high = ((ratio[key] - 1) * 100 for key in ("median", "low", "high"))
    return f"{median:+.1f} ({low:+.1f} to {high:+.1f})"


def times_cell(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def times_and_taxes(seconds: Seconds, bases: Sequence[str]) -> Row:
    """Of a row with several networks: milliseconds of each, and its time over that of each base."""
    return {
        "ms": {name: rounded(milliseconds(values)) for name, values in seconds.items()},
        "over": {base: {name: rounded(time_over(seconds, name, base)) for name in seconds} for base in bases},
    }


def tax_table(rows: list[Row], first: str, bases: Sequence[str], goal_of: Callable[[Row, str], float | None]) -> str:
    """Rows of `times_and_taxes`, a line for each network.

    Args:
        rows: of the two bases, gcnet.fold of the plain network and the independent merge.
        first: what the first column names.
        bases: their names.
        goal_of: a row and a network in it -> the highest tax that is its goal; None if it has none.
    """
    lines = []
    for row in rows:
        for name, ms in row["ms"].items():
            ratios = [row["over"][base][name] for base in bases]
            cells = ["" if name == base else percent_cell(r) for base, r in zip(bases, ratios, strict=True)]
            limit = goal_of(row, name)
            goal = ""
            if limit is not None:
                goal = f"<= {limit * 100:.0f}: {', '.join(reached(ratio, 1 + limit) for ratio in ratios)}"
            lines.append(f"{row['case']} | {name} | {ms_cell(ms)} | {cells[0]} | {cells[1]} | {goal} | {ms['n']}")
    header = (
        f"{first} | blocks | ms | tax over gcnet.fold of the plain one, % | "
        "tax over the independent one, % | goal for both | rounds"
    )
    return as_table(header, lines)


def as_table(header: str, lines: list[str]) -> str:
    """Markdown of a table from its header, cells separated by |, and its lines likewise."""
    rule = "|".join(["---"] * (header.count("|") + 1))
    return "\n".join(f"| {line} |" if line != rule else f"|{line}|" for line in (header, rule, *lines))
