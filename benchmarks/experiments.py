"""The two training experiments: scenes of real digits (the full demo), and garments with pretrained EfficientNet-Lite0.

    python benchmarks/experiments.py scenes [--quick]
    python benchmarks/experiments.py garments --data DIR      # an image folder with train, validation, test

Both go on where they were interrupted; run again when finished they only write the results files. They take a quarter
of an hour and most of an hour on two cores, so `make bench` leaves them out.
"""

import argparse
from pathlib import Path

from gcnet.analysis.comparison import Comparison, run_table
from gcnet.recipes import Settings, compare, demo
from measure import write

BATCHES = "training step and inference: time over that of none, one batch, interleaved rounds, median (95 %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["scenes", "garments"], nargs="?")
    parser.add_argument("--data", help="the folder of garments")
    parser.add_argument("--seeds", default="0,1,2", help="for the garments")
    parser.add_argument("--quick", action="store_true", help="scenes: one seed, as `make demo`")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.experiment is None:
        print("experiments: long, skipped; name one: scenes or garments")
    elif arguments.experiment == "scenes":
        scenes(arguments.runs, arguments.quick)
    elif arguments.data is None:
        parser.error("garments needs --data DIR")
    else:
        garments(arguments.data, arguments.runs, [int(seed) for seed in arguments.seeds.split(",")])


def scenes(runs: Path, quick: bool) -> None:
    found = demo(runs=runs, quick=quick)
    parts = [f"## {task}\n\n{table(comparison)}" for task, comparison in found.comparisons.items()]
    rows = [row | {"task": task} for task, c in found.comparisons.items() for row in rows_of(c)]
    name, command = ("scenes_quick", "gcnet demo --quick") if quick else ("scenes", "gcnet demo")
    write(name, rows, f"{command}: scenes of real digits, balanced accuracy", "\n\n".join([found.meaning, *parts]))


def garments(data: str, runs: Path, seeds: list[int]) -> None:
    settings = Settings(
        data=data,
        model="timm/tf_efficientnet_lite0",
        weights="imagenet",
        image_size=128,
        epochs=5,
        cache=True,
        runs=runs,
    )
    comparison = compare(settings, blocks=("none", "se", "gc"), seeds=seeds, name="clothing")
    about = "Garments (10 classes, 3,068 photographs): EfficientNet-Lite0 from ImageNet weights, 5 epochs at 128 px"
    write("garments", rows_of(comparison), about, table(comparison))


def rows_of(comparison: Comparison) -> list[dict]:
    """The table, and every run in it, without folders."""
    runs = [{key: value for key, value in run.items() if key != "folder"} for run in run_table(comparison)]
    return [
        row
        | {"metric": comparison.metric, "split": comparison.split, "runs": [r for r in runs if r["variant"] == name]}
        for row in comparison.table
        for name in [row["variant"]]
    ]


def table(comparison: Comparison) -> str:
    metric = comparison.metric.replace("_", " ")
    lines = [
        f"| block | {comparison.split} {metric}, % | difference to none, points | added parameters | added MACs | "
        "training step | inference | median s per epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in comparison.rows:
        epochs = sorted(r.summary["seconds_per_epoch"] for r in comparison.results if r.label == row.label)
        cells = [row.label, _interval(row.accuracy, "{:.1f}"), _interval(row.difference, "{:+.1f}")]
        cells += [f"{row.added_parameters:,}", f"{row.added_macs:,}"]
        for timing in (row.cost.training, row.cost.inference):
            cells.append(f"{timing.ratio.value:.3f} ({timing.ratio.low:.3f} to {timing.ratio.high:.3f})")
        cells.append(f"{epochs[len(epochs) // 2]:.1f}" if epochs else "")
        lines.append("| " + " | ".join(cells) + " |")
    seeds = len(comparison.rows[0].accuracies)
    return "\n".join(
        [*lines, "", f"{seeds} seeds; 95 % intervals by Student's t, differences paired by seed; {BATCHES}."]
    )


def _interval(mean, form: str) -> str:
    if mean is None:
        return ""
    half = "" if mean.half_width is None else f" ± {100 * mean.half_width:.1f}"
    return form.format(100 * mean.value) + half


if __name__ == "__main__":
    main()
