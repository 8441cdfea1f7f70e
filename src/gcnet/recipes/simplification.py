"""`simplify`: a checkpoint and images in, the checkpoint with simplified non-local blocks out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.analysis.intervals import Median
from gcnet.checkpoints import save_checkpoint
from gcnet.data.classification.transforms import eval_transform
from gcnet.data.images import read_image
from gcnet.errors import ImageError, SettingsError, whole
from gcnet.recipes.inputs import checkpoint_to_write, device_of, find_images, stored_model
from gcnet.report.terminal import tracked
from gcnet.rewrites.simplification.apply import simplify as simplify_model
from gcnet.rewrites.simplification.report import Simplification
from gcnet.surgery import record
from gcnet.surgery.timing import time_side_by_side
from gcnet.tasks.settings import from_json
from gcnet.tasks.table import spec_of


@dataclass(frozen=True)
class Simplified:
    """What was written.

    Attributes:
        path: the file.
        report: what became of each block; see `gcnet.simplify`.
        speed_up: time of the model before over after, one batch of the calibration images, medians of interleaved
            rounds; None if no block was replaced.
        images: calibration images that were read.
        skipped: image file -> why it could not be read.
    """

    path: Path
    report: Simplification
    speed_up: Median | None
    images: int
    skipped: dict[str, str] = field(default_factory=dict)


def simplify(
    source: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    count: int = 256,
    batch_size: int = 16,
    max_error: float = 0.02,
    refine_steps: int = 0,
    progress: bool = False,
) -> Simplified:
    """Simplify the non-local blocks of a checkpoint that hardly depend on their query: `gcnet.simplify`, file to file.

    The file is written in any case; if no block qualifies it holds the model as it was, and the report says why.

    Args:
        source: the folder of a run, or a file that `gcnet.load_checkpoint` opens.
        out: the safetensors file to be written.
        data: a folder or CSV file of images, whose training part is used without labels; or the name of scenes. None,
            without images: the data of the run.
        images: image files, and folders of them, instead of data.
        count: how many images at most, drawn at random with a fixed seed. A quarter of them is held out.
        batch_size: images in one pass of the model.
        max_error, refine_steps: as in `gcnet.simplify`.
        progress: show a progress bar, if the output is a terminal.

    Raises:
        SettingsError: no or two sources of images, or an `out` that is no .safetensors file in a folder that exists.
        RewriteError: no non-local block in the model, fewer than two images that can be read.
        RunError, CheckpointError, DataError: no usable model or data there.
    """
    out = checkpoint_to_write(out, source)
    whole("count", count, 2, kind=SettingsError)
    whole("batch_size", batch_size, kind=SettingsError)
    model = stored_model(source)
    skipped: dict[str, str] = {}
    examples = _examples(model, _data_of(source, data, images), images, count, skipped, progress)
    batches = _batched(examples, batch_size)
    first = next(batches, None)
    model = model.to(device_of())
    all_batches = chain([] if first is None else [first], batches)
    simplified: Any = simplify_model(model, all_batches, max_error=max_error, refine_steps=refine_steps)
    save_checkpoint(simplified, out)
    speed_up = None
    if simplified.report.replaced and first is not None:
        speed_up = _speed_up(model, simplified, first)
    return Simplified(out, simplified.report, speed_up, sum(simplified.report.images), skipped)


def _data_of(source: str | Path, data: str | None, images: Any) -> str | None:
    """The data that were named, or else those of the run; None where images were named."""
    if images is not None:
        if data is not None:
            raise SettingsError(f"data={data!r} and images={images!r}: give one of the two")
        return None
    settings = Path(source) / "settings.json"
    if data is None and settings.is_file():
        return from_json(settings).data.path
    if data is None:
        raise SettingsError(f"data=None, images=None: {source} is a file of weights, which names no images; give some")
    return data


def _examples(
    model: nn.Module, data: str | None, images: Any, count: int, skipped: dict[str, str], progress: bool
) -> Iterator[Tensor]:
    """Inputs of the model, one by one."""
    draw = random.Random(0)
    preprocessing = record.preprocessing(model)
    if data is None and preprocessing is None:
        raise SettingsError("images: this model does not read photographs; name its scenes as data")
    known = spec_of(model)
    found = None if data is None else known.read(data, splits=("train",), model=model)
    if preprocessing is None:
        scenes: Any = known.open(found, model).datasets["train"]
        for index in draw.sample(range(len(scenes)), min(count, len(scenes))):
            yield scenes[index][0]
        return
    samples = [] if found is None else found.train or found.val or found.test
    paths = find_images(images) if found is None else [Path(sample.path) for sample in samples]
    transform = eval_transform(preprocessing)
    for path in tracked(draw.sample(paths, min(count, len(paths))), "reading images", progress):
        try:
            yield transform(read_image(path))
        except ImageError as error:
            skipped[str(path)] = error.reason


def _batched(examples: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    batch: list[Tensor] = []
    for example in examples:
        batch.append(example)
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)


def _speed_up(model: nn.Module, simplified: nn.Module, images: Tensor) -> Median:
    images = images.to(next(model.parameters()).device)
    ratio = time_side_by_side({"before": model, "after": simplified}, images, budget=10.0)["after"].ratio
    return Median(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.count)
