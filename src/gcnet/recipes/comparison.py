"""`compare`: the same model with several blocks, or several values of one option, over several seeds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from gcnet.analysis.comparison import Comparison, Cost, Failure, Result, make_rows
from gcnet.analysis.cost import count_macs, count_parameters
from gcnet.analysis.published import Published
from gcnet.errors import RunError, SettingsError
from gcnet.recipes.inputs import device_of
from gcnet.recipes.run import folder as folders
from gcnet.recipes.run.evaluation import evaluate
from gcnet.recipes.run.training import prepare, train
from gcnet.recipes.variants import NONE, Variant, make_variants
from gcnet.report.comparison import save_report
from gcnet.report.page import require_report
from gcnet.surgery.timing import time_side_by_side
from gcnet.tasks.settings import Settings
from gcnet.tasks.table import spec

COST_BATCH = 32


def compare(
    settings: Settings,
    *,
    blocks: Sequence[str] | None = None,
    axis: str | None = None,
    values: Sequence[Any] | None = None,
    seeds: int | Sequence[int] = 3,
    name: str = "compare",
    cost_rounds: int = 30,
    cost_seconds: float = 60.0,
    progress: bool = True,
) -> Comparison:
    """Train the same model in several variants with several seeds each, and tabulate what each gains and costs.

    The runs lie in `runs/<name>/<variant>/seed<k>`. Called again with the same settings, finished runs are taken as
    they are and an interrupted one goes on. A run that fails is named in the result and does not stop the others. The
    epoch is chosen on the validation part, the test part is used once per run, at its end; data without a test part
    are reported on the validation part, and the report says so.

    Args:
        settings: what all runs share; `name`, and for a comparison of blocks `block`, are set for each run.
        blocks: the variants, "none" for the model without a block; the first (or "none") is the yardstick. None for
            none, se, snl, gc, nl.
        axis: instead of blocks, what to vary: one of the paper's ablations (block, position, stages, bottleneck,
            reduction, pool-fusion; its figures are set beside yours), an argument of `insert` or an option of
            `settings.block`.
        values: the values on that axis; the paper's if None.
        seeds: how many (`settings.run.seed`, one more, ...), or which.
        name: of the folder under `settings.run.runs`.
        cost_rounds: rounds in which training steps and inference of all variants are timed side by side.
        cost_seconds: no round starts after so many seconds, for each of the two.
        progress: say which run is under way, with training's progress bar.

    Returns:
        Rows, runs and failures; `comparison.csv`, `runs.csv`, two pictures and `report.html` are in its folder.

    Raises:
        SettingsError, ValueError, TypeError: a variant cannot be built; said before any training.
        RunError: a folder holds a run with other settings; said before any training.
    """
    chosen = range(settings.run.seed, settings.run.seed + seeds) if isinstance(seeds, int) else seeds
    if not chosen:
        raise SettingsError(f"seeds={seeds!r}: allowed are whole numbers from 1, or a list of seeds")
    require_report()
    variants = make_variants(settings, blocks=blocks, axis=axis, values=values)
    planned = _planned(variants, chosen, name)
    models, split = _prepare(variants)
    metric = spec(settings.task).metric
    results, failures = _run(planned, split, metric, progress=progress)
    costs = _costs(models, settings, rounds=cost_rounds, budget=cost_seconds)
    rows = make_rows([variant.label for variant in variants], results, costs, metric)
    folder, published = settings.run.runs / name, _published(variants)
    comparison = Comparison(
        folder, settings, metric, split, rows, tuple(results), tuple(failures), axis=axis, published=published
    )
    save_report(comparison)
    return comparison


def _published(variants: Sequence[Variant]) -> dict[str, Published]:
    """The paper's figures by label, if any are known but those of the model without a block."""
    known = {variant.label: variant.published for variant in variants if variant.published is not None}
    return known if set(known) - {NONE} else {}


def _planned(variants: Sequence[Variant], seeds: Sequence[int], name: str) -> list[tuple[str, Settings]]:
    """The label and the settings of every run; those that have begun must have begun with the same ones."""
    planned = [
        (variant.label, replace(variant.settings, seed=seed, name=f"{name}/{variant.folder}/seed{seed}"))
        for seed in seeds
        for variant in variants
    ]
    for _, run in planned:
        if (run.folder / "settings.json").exists():
            folders.check_resumable(run.folder, run)
    return planned


def _prepare(variants: Sequence[Variant]) -> tuple[dict[str, nn.Module], str]:
    """Every variant's model, so that a wrong option is found before hours of training; and the split to report."""
    models, splits = {}, set()
    for variant in variants:
        torch.manual_seed(variant.settings.run.seed)
        models[variant.label], source = prepare(replace(variant.settings, cache=False))
        splits = {*source.datasets, *source.others}
    split = next((split for split in ("test", "val") if split in splits), None)
    if split is None:
        data = variants[0].settings.data.path
        raise SettingsError(f"data={data!r} has neither a test nor a validation part to compare on")
    return models, split


def _run(
    planned: Sequence[tuple[str, Settings]], split: str, metric: str, *, progress: bool
) -> tuple[list[Result], list[Failure]]:
    """Train and measure what is not finished yet; the settings by the label of their variant."""
    shown = _Progress(len(planned), metric, shown=progress)
    results, failures = [], []
    for label, run in planned:
        shown.begin(run, label)
        seed = run.run.seed
        known = folders.read_summary(run.folder).get("status") == "done"
        try:
            finished = train(run, resume=(run.folder / "settings.json").exists(), progress=progress)
            figures = _figures(run, finished.weights, split)
            if figures[metric] is None:
                raise SettingsError(f"data={run.data.path!r}: no objects in the {split} part, so there is no {metric}")
        except Exception as error:  # whatever one run dies of, the others are worth having
            failures.append(Failure(label, seed, f"{type(error).__name__}: {error}"))
            shown.failed(failures[-1].reason)
        else:
            results.append(Result(label, seed, finished.folder, figures, finished.summary))
            shown.done(figures, trained=not known)
    if not results:
        raise RunError(f"all {len(planned)} runs failed; the first: {failures[0].reason}")
    shown.say("timing all variants side by side")
    return results, failures


class _Progress:
    """Says which run is under way, what it gave, and how long the rest will take."""

    def __init__(self, total: int, metric: str, *, shown: bool) -> None:
        self.total, self.metric = total, metric
        self.console = Console(stderr=True, quiet=not shown)
        self.number = 0
        self.seconds: list[float] = []

    def begin(self, run: Settings, label: str) -> None:
        self.number += 1
        what = f"{escape(run.data.path)}, [bold]{escape(label)}[/], seed {run.run.seed}"
        self.head = f"[dim]{self.number:3}/{self.total}[/]  {what}"
        self.began = time.monotonic()
        if self.console.is_terminal:
            self.console.print(self.head)

    def done(self, figures: Mapping[str, Any], *, trained: bool) -> None:
        took = time.monotonic() - self.began
        if trained:
            self.seconds.append(took)
        left = (self.total - self.number) * statistics.fmean(self.seconds) if self.seconds else 0.0
        rest = f", about {_duration(left)} left" if left else ""
        note = f"{_duration(took)}{rest}" if trained else "was finished"
        score = f"{self.metric.replace('_', ' ')} {100 * figures[self.metric]:.1f} %"
        self.console.print(f"{self.head}  {score}  [dim]{note}[/]", highlight=False)

    def failed(self, reason: str) -> None:
        self.console.print(f"{self.head}  [red]failed:[/] {escape(reason)}", highlight=False)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{escape(text)}[/]", highlight=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _figures(run: Settings, weights: Path, split: str) -> dict[str, Any]:
    """The run's figures on `split`, computed once: `evaluate` keeps them in `evaluation.json` beside the weights."""
    path = run.folder / "evaluation.json"
    if path.exists() and path.stat().st_mtime_ns >= weights.stat().st_mtime_ns:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if (kept.get("split"), kept.get("data")) == (split, run.data.path):
            return kept
    return evaluate(run.folder, split=split)


def _costs(models: Mapping[str, nn.Module], settings: Settings, *, rounds: int, budget: float) -> dict[str, Cost]:
    parameters = {label: count_parameters(model) for label, model in models.items()}
    counted = {label: spec(settings.task).compared(model, settings) for label, model in models.items()}
    images = next(image for _, image in counted.values())
    macs = {label: count_macs(model, images) for label, (model, _) in counted.items()}
    device = device_of()
    layout = torch.channels_last if settings.run.channels_last else torch.contiguous_format
    placed = {label: model.to(device, memory_format=layout) for label, (model, _) in counted.items()}  # type: ignore[call-overload]
    size = (min(settings.data.batch_size, COST_BATCH), *images.shape[1:])
    batch = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device).contiguous(memory_format=layout)
    training = time_side_by_side(placed, batch, training=True, rounds=rounds, budget=budget)
    inference = time_side_by_side(placed, batch, rounds=rounds, budget=budget)
    return {label: Cost(parameters[label], macs[label], training[label], inference[label]) for label in placed}
