"""What `gcnet.simplify` does to trained non-local models: accuracy and time before and after, on the demo's two tasks.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/simplify.py [--only 'digits cue *'] [--seeds 0,1,2]

On *cue* one context serves all positions, on *mirror* each position needs its own. Trained are the non-local block in
its four forms and the disentangled one; 256 training scenes calibrate, test scenes tell the accuracy. "2 %" is
`simplify` as it comes (error of a block, or share of decisions that change), "50 %" allows max_error=0.5, "refined"
adds 100 steps of refinement, "forced" replaces every block that has a form: what would be lost without the check. Times
are those of the whole model before over forced, one scene of 48x48 (16 positions) and one picture of 720x960 (4800).

A run is trained once and found again in `--runs`; each takes about a minute on two cores.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gcnet
from gcnet.analysis.intervals import Median
from gcnet.checkpoints import load_checkpoint
from gcnet.data.source import Source
from gcnet.recipes import Settings, train
from gcnet.recipes.run.evaluation import measure as figures_of
from gcnet.scenes.demo import TASKS, plan
from gcnet.scenes.source import open_scenes
from gcnet.surgery.timing import time_side_by_side
from measure import rounded
from rows import INTERVALS, Row, as_table, options, start, take, times_cell

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "embedded_gaussian": ("nl", {}),
    "gaussian": ("nl", {"pairwise": "gaussian"}),
    "dot_product": ("nl", {"pairwise": "dot_product"}),
    "concatenation": ("nl", {"pairwise": "concatenation"}),
    "disentangled": ("dnl", {}),
}
WAYS: dict[str, dict[str, Any]] = {
    "2 %": {},
    "50 %": {"max_error": 0.5},
    "50 %, refined": {"max_error": 0.5, "refine_steps": 100},
    "forced": {"max_error": math.inf},
}
IMAGES = 256
BATCH = 32
SIZES = ((48, 48), (720, 960))


def settings_of(items: str, task: str, form: str, seed: int, runs: Path) -> Settings:
    """The demo's settings of the task, with that block."""
    block, block_options = FORMS[form]
    planned = plan(items=items, runs=runs)[0][task]
    name = f"simplify/{items}/{task}/{form}/seed{seed}"
    return replace(planned, block=block, block_options=block_options, seed=seed, name=name)


def trained(settings: Settings) -> nn.Module:
    """The model of that run, which is trained, or gone on with, if it is not finished."""
    began = (settings.folder / "settings.json").exists()
    run = train(settings, resume=began)
    return load_checkpoint(run.weights).model


def measure(settings: Settings, *, rounds: int, seconds: float) -> Row:
    source = open_scenes(settings.data.path, ("train", "test"))
    return compare(trained(settings), source, settings, rounds=rounds, seconds=seconds)


def compare(model: nn.Module, source: Source, settings: Settings, *, rounds: int, seconds: float) -> Row:
    """Accuracy before and after in each of the ways, errors of the blocks, and times."""
    batches = calibration(source)
    accuracy = partial(_accuracy, source=source, settings=settings)
    row: Row = {"before": accuracy(model), "ways": {}}
    simplified: Any = model
    for way, arguments in WAYS.items():
        simplified = gcnet.simplify(model, batches, **arguments)
        report = simplified.report
        row["ways"][way] = {
            "accuracy": accuracy(simplified),
            "replaced": report.replaced,
            "kept": report.kept,
            "output_error": report.output_error,
            "changed": report.changed,
            "blocks": [
                {
                    key: entry[key]
                    for key in ("name", "form", "error", "errors", "changed", "least_error", "worst_image")
                }
                for entry in report.table
            ],
        }
    row["times_faster"] = {
        f"{height}x{width}": rounded(_times_faster(model, simplified, torch.rand(1, 1, height, width), rounds, seconds))
        for height, width in SIZES
    }
    return row


def calibration(source: Source) -> tuple[Tensor, ...]:
    """Training scenes, in batches."""
    images = torch.stack([source.datasets["train"][index][0] for index in range(IMAGES)])
    return images.split(BATCH)


def _accuracy(model: nn.Module, source: Source, settings: Settings) -> float:
    return figures_of(model, source, "test", settings=settings)["balanced_accuracy"]


def _times_faster(model: nn.Module, simplified: nn.Module, images: Tensor, rounds: int, seconds: float) -> Median:
    models = {"simplified": simplified, "before": model}
    return time_side_by_side(models, images, rounds=rounds, budget=seconds)["before"].ratio


def table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        forced = row["ways"]["forced"]["blocks"]
        errors = ", ".join(
            "" if block["error"] is None else f"{block['error']:.3f} ({block['form']})" for block in forced
        )
        cells = [row["case"], f"{row['before']:.4f}"]
        for way in row["ways"].values():
            blocks = len(way["replaced"]) + len(way["kept"])
            changed = f"{100 * way['changed']:.1f} %"
            cells.append(f"{way['accuracy']:.4f} ({len(way['replaced'])} of {blocks}, {changed})")
        cells += [errors, *(times_cell(ratio) for ratio in row["times_faster"].values())]
        lines.append(" | ".join(cells))
    header = "items, task, form, seed | balanced accuracy before | " + " | ".join(
        f"{way} (replaced, decisions changed)" for way in WAYS
    )
    header += " | smallest errors of the blocks | " + " | ".join(f"times faster, {h}x{w}" for h, w in SIZES)
    return as_table(header, lines) + f"\n\n{INTERVALS} Errors: closed form, without refinement."


def cases_of(seeds: list[int], runs: Path, effort: float) -> dict[str, Callable[[], Row]]:
    return {
        f"{items} {task} {form} {seed}": partial(
            measure, settings_of(items, task, form, seed, runs), rounds=round(40 * effort), seconds=10 * effort
        )
        for items in ("digits", "fashion")
        for task in TASKS
        for form in FORMS
        for seed in seeds
    }


def main() -> None:
    parser = options(__doc__, "digits * embedded_gaussian *")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = start(parser)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    about = "gcnet.simplify on trained non-local models: balanced accuracy on 1,000 test scenes, and time"
    take("simplify", about, cases_of(seeds, arguments.runs, arguments.effort), table, only=arguments.only)


if __name__ == "__main__":
    main()
