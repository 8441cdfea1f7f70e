"""`demo`: what context is for, on scenes of real digits; two comparisons and a report of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gcnet.analysis.comparison import Comparison
from gcnet.recipes.comparison import compare
from gcnet.report.comparison import comparison_figures, comparison_section, facts
from gcnet.report.page import Section, require_report, write_page
from gcnet.scenes.conclusions import conclusions, meaning
from gcnet.scenes.gallery import scene_gallery
from gcnet.tasks.settings import Settings

BLOCKS = ("none", "se", "snl", "gc", "nl")
TASKS = ("cue", "mirror")
# Of `mirror`, as many steps as fit: where they are fewer the non-local block has not found the partners yet.
TRAINING: dict[str, dict[str, Any]] = {
    "cue": {"epochs": 3, "batch_size": 64, "lr": 4e-3},
    "mirror": {"epochs": 6, "batch_size": 32, "lr": 2.5e-3},
}
ASKED = {
    "cue": "The task: mark every cell whose item is of the class shown inverted in the upper left corner. One context, "
    "the class of the cue, serves all cells.",
    "mirror": "The task: mark every cell whose item is of the class of the item in the mirrored column. Every cell "
    "needs its own context, the item of its partner.",
}


@dataclass(frozen=True)
class Demo:
    """The two comparisons, what they mean in one sentence, and the page that shows them."""

    comparisons: dict[str, Comparison]
    meaning: str
    page: Path


def plan(*, quick: bool = False, items: str = "digits", runs: Path = Path("runs")) -> tuple[dict[str, Settings], int]:
    """The settings of the two comparisons, and the number of seeds."""
    settings = {
        task: Settings(
            task="scenes",
            data=task if items == "digits" else f"{task}/{items}",
            model="scenes",
            weight_decay=1e-3,
            schedule="one_cycle",
            runs=runs,
            **TRAINING[task],
        )
        for task in TASKS
    }
    return settings, 1 if quick else 3


def demo(
    *,
    quick: bool = False,
    items: Literal["digits", "fashion"] = "digits",
    runs: Path = Path("runs"),
    progress: bool = True,
) -> Demo:
    """Compare no block, SE, SNL, GC and NL on both tasks of `gcnet.scenes.draw`, and write `runs/demo/report.html`.

    Interrupted, it goes on where it was; finished, it only writes the report again.

    Args:
        quick: one seed instead of three.
        items: what the scenes are made of.
        runs: the folder of all runs.
        progress: say which run is under way.
    """
    require_report()
    settings, seeds = plan(quick=quick, items=items, runs=runs)
    kind = ("quick" if quick else "full") + ("" if items == "digits" else f"-{items}")
    comparisons = {
        task: compare(
            own,
            blocks=BLOCKS,
            seeds=seeds,
            name=f"demo/{kind}/{task}",
            cost_rounds=10 if quick else 30,
            progress=progress,
        )
        for task, own in settings.items()
    }
    said = conclusions(comparisons["cue"], comparisons["mirror"])
    page = runs / "demo" / "report.html"
    sections = []
    for task, comparison in comparisons.items():
        accuracy, _ = comparison_figures(comparison)
        section = comparison_section(comparison, task.capitalize(), [accuracy], sentences=[said[task]])
        sections.append(replace(section, lead=ASKED[task], gallery=scene_gallery(comparison, count=2)))
    _, time = comparison_figures(comparisons["cue"])
    sections.append(Section("What the blocks cost", sentences=[said["cost"]], figures=[time]))
    sentence = meaning(comparisons["cue"], comparisons["mirror"])
    write_page(
        page,
        title=f"What context blocks are for: scenes of real {'digits' if items == 'digits' else 'clothes'}",
        lead=sentence,
        sections=sections,
        facts=[fact for fact in facts(comparisons["cue"]) if fact[0] not in ("data", "folder")]
        + [("runs", ", ".join(str(comparison.folder) for comparison in comparisons.values()))],
    )
    return Demo(comparisons, sentence, page)
