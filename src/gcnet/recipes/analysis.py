"""`analyze`: a model by name or a checkpoint, and images: how much its attention depends on the query."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import nn

from gcnet.analysis.grids import MOST_IMAGES
from gcnet.checkpoints import load_checkpoint
from gcnet.data.source import open_scenes
from gcnet.errors import SettingsError
from gcnet.models import create_model
from gcnet.recipes.evaluation import weights_of
from gcnet.recipes.prediction import find_images
from gcnet.report.analysis import Analysis
from gcnet.report.analysis import analyze as analyze_model
from gcnet.surgery import record

_FILES = (".safetensors", ".pth", ".pt")


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
    if limit is not None and limit < 1:
        raise SettingsError(f"limit={limit} must be at least 1")
    built = _model(model, weights).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    places = [images] if isinstance(images, str | Path) else list(images)
    if (record.architecture(built) or {}).get("name") == "scenes":
        if len(places) != 1:
            raise SettingsError(f"images={[str(p) for p in places]}: a model of scenes takes one name, such as cue")
        scenes = open_scenes(str(places[0]), ("test",)).datasets["test"]
        return analyze_model(built, scenes[:limit][0], keep=keep)
    found: Iterable[Path] = find_images(places)[:limit]
    if progress and sys.stdout.isatty():
        found = track(list(found), "analysing", transient=True)
    return analyze_model(built, found, keep=keep)


def _model(model: str | Path, weights: str | Path | None) -> nn.Module:
    path = Path(model)
    if path.exists() or path.suffix in _FILES:
        if weights is not None:
            raise SettingsError(f"weights={str(weights)!r}: {path} has its own; leave it out")
        return load_checkpoint(weights_of(path)).model
    return create_model(str(model), num_classes=6 if model == "scenes" else 1000, weights=weights)
