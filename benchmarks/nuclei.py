"""Nuclei of the Data Science Bowl 2018: a small Mask R-CNN from scratch on the CPU, with and without GC blocks.

    python benchmarks/nuclei.py --data DIR           # COCO folder with train and val; goes on where it was interrupted
    python benchmarks/nuclei.py --data DIR --time    # seconds per training step with one thread and with two

A ResNet-18 of half the width at 256 pixels, 6 epochs of 406 images. The figures are those of the last epoch on val, not
of the best one, since val chose nothing else.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch

from gcnet.data.loading import train_loader
from gcnet.recipes import Run, train
from gcnet.recipes.run.training import prepare
from gcnet.tasks.detection.module import trainable
from gcnet.tasks.detection.recipe import detection_settings
from gcnet.tasks.settings import Settings
from measure import write

BLOCKS = {"none": {}, "gc": {"block": "gc", "stages": ("c3", "c4", "c5"), "block_options": {"reduction": 4}}}
DETECTOR = {
    "base_channels": 32,
    "fpn_channels": 64,
    "fc_channels": 128,
    "mask_channels": 32,
    "rois_per_image": 64,
    "train_proposals": [500, 200],
    "proposals": [500, 200],
    "detections_per_image": 150,  # the fullest image holds 131 nuclei
}
FIGURES = ("box_AP", "box_AP50", "box_AP75", "mask_AP", "mask_AP50", "mask_AP75")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of nuclei")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--time", action="store_true", help="only time training steps")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.data is None:
        print("nuclei: long, skipped; give --data DIR")
    elif arguments.time:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for block in BLOCKS:
                seconds = step_seconds(settings_for(arguments.data, block, 0, arguments.epochs, arguments.runs))
                print(
                    f"{threads} threads, {block}: {seconds:.2f} s per step of 4 images, {100 * seconds:.0f} s per epoch"
                )
    else:
        compare(arguments.data, [int(seed) for seed in arguments.seeds.split(",")], arguments.epochs, arguments.runs)


def settings_for(data: str, block: str, seed: int, epochs: int, runs: Path) -> Settings:
    return detection_settings(
        data,
        task="instances",
        model="maskrcnn_resnet18_fpn",
        detector_options=DETECTOR,
        image_size=256,
        epochs=epochs,
        batch_size=4,
        lr=0.02,
        warmup_steps=100,
        clip_norm=10.0,
        save_every=25,
        seed=seed,
        name=f"nuclei-{block}-{seed}",
        runs=runs,
        **BLOCKS[block],
    )


def step_seconds(settings: Settings, steps: int = 6) -> float:
    """Median seconds of a training step, reading the images included; the first two are not counted."""
    torch.manual_seed(0)
    model, source = prepare(settings)
    model = model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batches = iter(train_loader(source, batch_size=settings.data.batch_size, workers=0, seed=0))
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(batches)
        loss = sum(model(batch.images, [trainable(target) for target in batch.targets]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def compare(data: str, seeds: list[int], epochs: int, runs: Path) -> None:
    rows = []
    for seed in seeds:
        for block in BLOCKS:
            settings = settings_for(data, block, seed, epochs, runs)
            result = train(settings, resume=(settings.folder / "settings.json").exists())
            rows.append({"block": block, "seed": seed, **figures(result)})
            print(rows[-1])
    about = f"Nuclei (406 + 101 images): Mask R-CNN, ResNet-18 of half the width, 256 px, from scratch, {epochs} epochs"
    write("nuclei", rows, about, table(rows))


def figures(result: Run) -> dict[str, float]:
    """Of the last epoch on val, in points; minutes per epoch."""
    with (result.folder / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    found = {name: round(100 * float(last[f"val_{name}"]), 2) for name in FIGURES}
    return found | {"minutes_per_epoch": round(result.summary["seconds_per_epoch"] / 60, 2)}


def table(rows: list[dict]) -> str:
    names = ["block", "seed", *FIGURES, "minutes_per_epoch"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    for block in BLOCKS:
        own = [row for row in rows if row["block"] == block]
        means = [f"{statistics.mean(row[name] for row in own):.2f}" for name in (*FIGURES, "minutes_per_epoch")]
        lines.append("| " + " | ".join([block, "mean", *means]) + " |")
    note = (
        "AP in points of the last epoch on val; minutes include validation, and what else ran on the machine meanwhile."
    )
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    main()
