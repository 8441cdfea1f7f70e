"""`analyze`: a model by name or a checkpoint, and images: how much its attention depends on the query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcnet.analysis.grids import MOST_IMAGES
from gcnet.errors import SettingsError, whole
from gcnet.recipes.inputs import as_list, device_of, find_images, model_of
from gcnet.report.analysis import Analysis
from gcnet.report.analysis import analyze as analyze_model
from gcnet.report.terminal import tracked
from gcnet.tasks.table import spec_of


def analyze(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    weights: str | Path | None = None,
    limit: int | None = None,
    keep: int = MOST_IMAGES,
    progress: bool = False,
) -> Analysis:
    """How much the attention of a model's blocks depends on the query; see `gcnet.analyze`.

    Args:
        model: the folder of a run, a file of weights, or a name that `gcnet.create_model` takes.
        images: files and folders; folders are searched at any depth. For a model of scenes their name, such as "cue".
        weights: of a model given by name: "imagenet", a file, or None for a random start.
        limit: look at the first so many images only.
        keep: of how many images, the first ones, pictures and maps are kept for `Analysis.save`; at most 12.
        progress: show a progress bar, if the output is a terminal.

    Raises:
        SettingsError: no image found, weights for a model that has its own, a limit below 1.
        RunError, CheckpointError, FileNotFoundError: no usable model there.
        ValueError: the model holds no attention that can be read.
    """
    if limit is not None:
        whole("limit", limit, kind=SettingsError)
    built = model_of(model, weights=weights).to(device_of())
    places = as_list(images)
    known = spec_of(built)
    if known.predict is None:
        if len(places) != 1:
            raise SettingsError(f"images={[str(p) for p in places]}: a model of scenes takes one name, such as cue")
        found = known.read(str(places[0]), splits=("test",), model=built)
        scenes: Any = known.open(found, built).datasets["test"]
        return analyze_model(built, scenes[:limit][0], keep=keep)
    return analyze_model(built, tracked(find_images(places)[:limit], "analysing", progress), keep=keep)
