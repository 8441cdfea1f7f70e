"""`gcnet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="One seed instead of three: minutes, no intervals.")] = False,
    items: Annotated[str, typer.Option(help="What the scenes are made of: digits or fashion.")] = "digits",
    runs: Annotated[Path, typer.Option(help="The runs and the report are in RUNS/demo.")] = Path("runs"),
) -> None:
    """Train the blocks on scenes of real digits, compare them, and write a report that shows what each is for.

    Interrupted, the same command goes on where it was.
    """
    if items not in ("digits", "fashion"):
        raise typer.BadParameter(f"{items!r} is unknown; use digits or fashion", param_hint="--items")
    seeds, minutes = (1, 5) if quick else (3, 15)
    typer.echo(
        f"Trains 5 small models (no block, SE, SNL, GC, NL) on 2 tasks with {seeds} {'seed' if quick else 'seeds'}: "
        f"{10 * seeds} short trainings, about {minutes} minutes on 2 cores.\n"
        f"Then writes {runs / 'demo' / 'report.html'}. Ctrl-C stops; the same command goes on."
    )
    from gcnet.report.comparison import say_comparison
    from gcnet.scenes.demo import demo as run

    result = run(quick=quick, items=items, runs=runs)  # type: ignore[arg-type]
    for task, comparison in result.comparisons.items():
        say_comparison(comparison, title=task)
    typer.echo(f"\n{result.meaning}\n\n{result.page}: the report, with scenes and what each model marked")
    if any(comparison.failures for comparison in result.comparisons.values()):
        raise typer.Exit(1)
