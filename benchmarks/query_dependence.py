"""Does attention depend on its query? The controlled experiment of docs/query-dependence.md.

    python benchmarks/query_dependence.py                            # all runs; go on by the same command
    python benchmarks/query_dependence.py --only 'digits mirror *' --seeds 0,1
    python benchmarks/query_dependence.py --docs                     # tables, figure and page; trains nothing

Nine models on scenes whose cells are to be marked: by one context for all of them (`cue`), by one of their own
(`mirror`), three points between these two (`dial-1` to `dial-3`), and by one that only looks like a comparison of pairs
(`twice`). Digits: five seeds; clothes: three seeds, five models. Of each run the accuracy on 1,000 test scenes, on the
two kinds of cells by themselves, what `gcnet.analyze` finds on the first 200 of them, and the accuracy when
`gcnet.simplify` gives each image one map for all its queries, whatever is lost.

A run takes a core and most of a minute. It is trained in `--runs` and written to results/query_dependence.json when it
is finished; what is in that file is not done again, and a run that was stopped goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import itertools
import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

import gcnet
from gcnet.analysis.figures import FIGURES
from gcnet.checkpoints import load_checkpoint
from gcnet.data.source import Source
from gcnet.files.atomic import write_text
from gcnet.recipes import Settings, train
from gcnet.recipes.run.evaluation import measure as figures_of
from gcnet.scenes.demo import plan
from gcnet.scenes.draw import GRID, IGNORED, MIRRORED_ROWS
from gcnet.scenes.source import open_scenes
from measure import RESULTS, environment
from query_dependence_report import QUERIED, write_docs, write_report
from simplify import WAYS, calibration

NAME = "query_dependence"
TASKS = ("cue", "dial-1", "dial-2", "dial-3", "mirror", "twice")
# With r = 16 a GC or SE block of 64 channels would have 4 hidden ones, where those of the paper have 32 to 128.
MODELS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "none": (None, {}),
    "se": ("se", {"reduction": 4}),
    "snl": ("snl", {}),
    "gc": ("gc", {"reduction": 4}),
    "nl": ("nl", {}),
    "nl-gaussian": ("nl", {"pairwise": "gaussian"}),
    "nl-dot_product": ("nl", {"pairwise": "dot_product"}),
    "nl-concatenation": ("nl", {"pairwise": "concatenation"}),
    "dnl": ("dnl", {}),
}
MODELS_OF = {"digits": tuple(MODELS), "fashion": ("none", "snl", "gc", "nl", "dnl")}
SEEDS_OF = {"digits": (0, 1, 2, 3, 4), "fashion": (0, 1, 2)}
EPOCHS = 8
IMAGES = 200  # test scenes that are analysed
# Before a process begins: one thread, which sleeps while it waits; memory stays with the process (docs/guide-training).
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run."""

    items: str
    task: str
    model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.items} {self.task} {self.model} {self.seed}"

    def settings(self, runs: Path) -> Settings:
        """Those of the demo's *cue*, with another number of epochs, for all tasks and models."""
        block, options = MODELS[self.model]
        return replace(
            plan(items=self.items, runs=runs)[0]["cue"],
            data=self.task if self.items == "digits" else f"{self.task}/{self.items}",
            block=block,
            block_options=options,
            epochs=EPOCHS,
            seed=self.seed,
            name=f"{NAME}/{self.items}/{self.task}/{self.model}/seed{self.seed}",
        )


def all_cases(seeds: Sequence[int] | None = None) -> list[Case]:
    """All runs, seed by seed, so that an unfinished study has all models; digits first."""
    return [
        Case(items, task, model, seed)
        for items, own in SEEDS_OF.items()
        for seed in own
        if seeds is None or seed in seeds
        for task in TASKS
        for model in MODELS_OF[items]
    ]


def measure(case: Case, runs: Path) -> Row:
    """Train that run, or go on with it, and look at the result."""
    settings = case.settings(runs)
    run = train(settings, resume=(settings.folder / "settings.json").exists(), progress=False)
    model = load_checkpoint(run.weights).model.eval()
    source = open_scenes(settings.data.path, ("train", "test"))
    figures = figures_of(model, source, "test", settings=settings)
    epochs, best_epoch = settings.optimisation.epochs, run.summary["best_epoch"]
    row: Row = {"case": str(case), **vars(case), "epochs": epochs, "best_epoch": best_epoch}
    row |= {"accuracy": figures["balanced_accuracy"], "item_accuracy": figures["item_accuracy"]}
    mirrored = MIRRORED_ROWS.get(case.task, 0)
    if 0 < mirrored < GRID:
        for name, lines in (("cue", slice(0, GRID - mirrored)), ("mirror", slice(GRID - mirrored, GRID))):
            part = figures_of(model, _part(source, lines), "test", settings=settings)
            row[f"{name}_accuracy"] = part["balanced_accuracy"]
    row["blocks"] = _blocks(model, source) if MODELS[case.model][0] else []
    if case.model in QUERIED:
        one_map = gcnet.simplify(model, calibration(source), **WAYS["forced"])
        replaced = figures_of(one_map, source, "test", settings=settings)
        row["one_map_accuracy"] = replaced["balanced_accuracy"]
    row |= {"seconds": run.summary["seconds"], "torch": torch.__version__, "date": datetime.date.today().isoformat()}
    return _rounded(row)


def _part(source: Source, lines: slice) -> Source:
    """The same scenes, in which only these lines of cells count."""
    images, labels, cells, indices = source.datasets["test"][:]
    counted = torch.full_like(labels, IGNORED)
    counted[:, lines] = labels[:, lines]
    return replace(source, datasets={"test": TensorDataset(images, counted, cells, indices)})


def _blocks(model: torch.nn.Module, source: Source) -> list[Row]:
    """What `analyze` says of each block; the verdict without its words, which depend on the thresholds."""
    images = source.datasets["test"][:IMAGES][0]
    found = gcnet.analyze(model, images.split(100))
    names = ("block", *FIGURES, "query_between")
    return [
        {name: row[name] for name in names}
        | {name: found.verdicts[row["block"]].numbers[name] for name in ("dependence", "low", "high")}
        for row in found.table
    ]


def _rounded(value: Any) -> Any:
    """Six digits are enough; JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def collect(
    cases: Sequence[Case],
    work: Callable[[Case], Row],
    pool: Executor,
    size: int,
    finished: Callable[[Case, Row | Exception], None],
) -> None:
    """Do the cases, no more than `size` at a time, so that nothing waits inside the pool when it is stopped."""
    waiting = iter(cases)
    going: dict[Future[Row], Case] = {pool.submit(work, case): case for case in itertools.islice(waiting, size)}
    while going:
        for future in wait(going, return_when=FIRST_COMPLETED).done:
            case = going.pop(future)
            going |= {pool.submit(work, following): following for following in itertools.islice(waiting, 1)}
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            finished(case, error if error is not None else future.result())


class _Work:
    """`measure` with its folder; a class, since processes are sent it by pickle."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs

    def __call__(self, case: Case) -> Row:
        return measure(case, self.runs)


class Study:
    """The results file, and what is printed while it grows."""

    def __init__(self, folder: Path, total: int = 0) -> None:
        self.path = folder / f"{NAME}.json"
        data = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"rows": []}
        self.rows: dict[str, Row] = {row["case"]: row for row in data["rows"]}
        self.total, self.failed, self.done = total, 0, 0
        self.began = time.monotonic()

    def lacks(self, case: Case) -> bool:
        row = self.rows.get(str(case), {})
        return row.get("epochs") != EPOCHS or (case.model in QUERIED and "one_map_accuracy" not in row)

    def add(self, case: Case, row: Row | Exception) -> None:
        self.done += 1
        minutes = (time.monotonic() - self.began) / 60
        rest = f"{minutes:.0f} min, about {minutes / self.done * (self.total - self.done):.0f} left"
        if isinstance(row, Exception):
            self.failed += 1
            said = f"failed: {type(row).__name__}: {row}"
        else:
            self.rows[str(case)] = row
            self.save()
            said = f"{100 * row['accuracy']:.1f} %"
            if row["blocks"]:
                said += f", dependence {', '.join(format(block['dependence'], '.3f') for block in row['blocks'])}"
        print(f"[{self.done}/{self.total}] {case}: {said}  ({rest})", flush=True)

    def save(self) -> None:
        """One run a line, in the order of the study."""
        order = {str(case): number for number, case in enumerate(all_cases())}
        rows = sorted(self.rows.values(), key=lambda row: order.get(row["case"], len(order)))
        about = "Does attention depend on its query? Accuracy on 1,000 test scenes, and what gcnet.analyze finds on 200"
        head = json.dumps({"about": about, "environment": environment()}, indent=1)[:-2]
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        write_text(self.path, f'{head},\n "rows": [\n{lines}\n ]\n}}\n')

    def ordered(self, cases: Iterable[Case]) -> list[Row]:
        return [self.rows[str(case)] for case in cases if not self.lacks(case)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="*", help="only the runs whose name fits this glob, such as 'digits mirror *'"
    )
    parser.add_argument("--seeds", help="only these seeds, such as 0,1 (default: 0 to 4; of clothes 0 to 2)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each in one thread (default: 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs are kept (default: runs)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results go (default: %(default)s)")
    parser.add_argument("--docs", action="store_true", help="train nothing: tables, figure and page from the results")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error(f"--processes {arguments.processes} must be at least 1")
    os.environ |= VARIABLES
    torch.set_num_threads(1)
    seeds = None if arguments.seeds is None else [int(seed) for seed in arguments.seeds.split(",")]
    study = Study(arguments.results)
    if not arguments.docs:
        chosen = [case for case in all_cases(seeds) if fnmatch.fnmatch(str(case), arguments.only)]
        if not chosen:
            every = "\n".join(map(str, all_cases()))
            raise SystemExit(f"--only {arguments.only!r} --seeds {arguments.seeds} fits no run; the runs are:\n{every}")
        _train(study, [case for case in chosen if study.lacks(case)], arguments.processes, arguments.runs)
    cases = all_cases()
    rows = study.ordered(cases)
    if rows:
        print(f"wrote {write_report(rows, arguments.results)}")
    missing = len(cases) - len(rows)
    if missing:
        print(f"{missing} of {len(cases)} runs are missing" + ": the page was left as it is" * arguments.docs)
    elif arguments.docs:
        print("wrote " + ", ".join(map(str, write_docs(rows))))
    if study.failed or (missing and arguments.docs):
        raise SystemExit(1)


def _train(study: Study, cases: list[Case], processes: int, runs: Path) -> None:
    study.total = len(cases)
    # Ctrl-C reaches every process of the terminal; here one of them answers it, and answers a kill in the same way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        with pool:
            try:
                collect(cases, _Work(runs), pool, processes, study.add)
            except KeyboardInterrupt:
                for child in multiprocessing.active_children():
                    child.kill()  # each run is as its last epoch left it
                raise
    except KeyboardInterrupt:
        print(f"\ninterrupted: {study.done} of {len(cases)} runs were added to {study.path}; the same command goes on")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
