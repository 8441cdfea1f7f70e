"""How much the attention of a model's blocks depends on its query (arXiv 1904.11492, section 3.2), as plain figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.analysis.figures import FIGURES, figures_of
from gcnet.analysis.grids import MOST_IMAGES, Grid, KeptImage, grid_of, picture_of
from gcnet.analysis.images import Batch, batches
from gcnet.analysis.readers.attention import Reader, Seen
from gcnet.analysis.readers.blocks import readers
from gcnet.analysis.readers.transformers import NotReadableError
from gcnet.analysis.rows import Row, Rows
from gcnet.analysis.verdict import Verdict
from gcnet.distributed import gathered
from gcnet.errors import GcnetError, some
from gcnet.ops.precision import without_autocast
from gcnet.surgery import record
from gcnet.surgery.eager import check_model
from gcnet.surgery.probe import evaluating
from gcnet.surgery.watching import watching


@dataclass(frozen=True)
class Findings:
    """How much each block's attention depends on its query; every field is explained at `gcnet.Analysis`."""

    model: str
    images: int
    table: list[Row]
    heads: list[Row]
    scales: list[Row]
    per_class: list[Row]
    verdicts: dict[str, Verdict]
    skipped: dict[str, str]
    unreadable: dict[str, str]
    kept: list[KeptImage] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All figures as numbers, texts, lists and dictionaries for JSON, in which NaN and infinity are None."""
        names = ("model", "images", "table", "heads", "scales", "per_class", "skipped", "unreadable")
        verdicts = {name: {"verdict": str(found), **found.numbers} for name, found in self.verdicts.items()}
        return _plain({name: getattr(self, name) for name in names} | {"verdicts": verdicts})


def measure(model: nn.Module, images: Any, transform: Callable[[Any], Any] | None, keep: int) -> Findings:
    """Look at the images through every block that can be read; the arguments and the figures are `gcnet.analyze`'s."""
    check_model(model)
    if type(keep) is not int or not 0 <= keep <= MOST_IMAGES:
        raise GcnetError(f"keep={keep!r}; use a whole number from 0 to {MOST_IMAGES}")
    found, skipped = _readable(model)
    watch = _Watch(model, found, skipped, keep)
    unreadable: dict[str, str] = {}
    modules = {name: model.get_submodule(name) for name in found}
    with evaluating(model), torch.no_grad(), watching(modules, watch.read):
        for batch in batches(model, images, transform, unreadable):
            watch.run(batch)
    results = watch.rows.results()
    if not results.blocks:
        raise GcnetError(_nothing(watch.count, unreadable, skipped))
    skipped |= {name: "it was not called" for name in found if name not in results.blocks and name not in skipped}
    forms = gathered(watch.forms)
    table = [
        {"block": name, "kind": type(model.get_submodule(name)).__name__, "form": forms[name], **results.row(name)}
        for name in results.blocks
    ]
    classes = record.classes(model) or []
    return Findings(
        model=type(model).__name__,
        images=max(row["images"] for row in table),
        table=table,
        heads=[{"block": name, **row} for name in results.blocks for row in results.head_rows(name)],
        scales=[
            {"block": name, **row}
            for name in results.blocks
            if forms[name] == "softmax"
            for row in results.scale_rows(name)
        ],
        per_class=[
            {"block": name, "class": _class(classes, label), **results.class_row(name, label)}
            for name in results.blocks
            for label in results.classes()
        ],
        verdicts={name: results.verdict(name, forms[name]) for name in results.blocks},
        skipped=skipped,
        unreadable=unreadable,
        kept=watch.kept,
    )


def _readable(model: nn.Module) -> tuple[dict[str, Reader], dict[str, str]]:
    """The blocks by name with their readers, and why others cannot be read; at least one can."""
    found, skipped = readers(model)
    if not found:
        seen = some((f"{name or 'the model itself'} ({reason})" for name, reason in skipped.items()), 4)
        raise GcnetError(
            f"model: this {type(model).__name__} holds no attention that analyze can read"
            + (f": {seen}" if skipped else "; put a block in by gcnet.insert, or see gcnet.analyze for what it knows")
        )
    return found, skipped


class _Watch:
    """Reads every call of the blocks while a batch runs."""

    def __init__(self, model: nn.Module, found: Mapping[str, Reader], skipped: dict[str, str], keep: int) -> None:
        self.model, self.skipped, self.keep = model, skipped, keep
        self.rows = Rows(list(found), next(model.parameters(), torch.zeros(())).device)
        self._found = found
        self.forms: dict[str, str] = {}
        self.kept: list[KeptImage] = []
        self.count = 0
        self._generator = torch.Generator().manual_seed(0)
        self._sizes: list[tuple[int, int]] = []
        self._batch = 0
        self._grids: dict[str, list[Grid | None]] = {}

    def run(self, batch: Batch) -> None:
        """One batch through the model."""
        self._batch, self._grids = len(batch.names), {}
        self._sizes = [tuple(image.shape[-2:]) for image in batch.images]
        outputs = self.model(batch.images)
        labels = batch.labels
        if labels is None and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1:
            labels = outputs.argmax(dim=1)
        figures = self.rows.enter(labels)
        self.count += self._batch
        self._keep(batch, labels, figures)

    def read(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A call of a block; what cannot be read of it is noted among those skipped."""
        if name in self.skipped:
            return
        try:
            call = self._found[name](module, Seen(args, kwargs, output, self._batch))
            if len(call.input) != self._batch:
                raise NotReadableError(f"it is called on {len(call.input)} maps for {self._batch} images")
        except NotReadableError as reason:
            self.skipped[name] = f"{type(module).__name__}: {reason}"
            return
        call = call.without_prefix(_prefix(self.model, name))
        self.forms[name] = call.attention.form
        with without_autocast(call.input):
            self.rows.add(name, figures_of(call, self._generator))
            if name not in self._grids:
                self._grids[name] = [grid_of(call.attention, b, self._sizes[b]) for b in self._missing()]

    def _missing(self) -> range:
        """Which images of the batch are still to be kept."""
        return range(min(self._batch, self.keep - len(self.kept)))

    def _keep(self, batch: Batch, labels: Tensor | None, figures: Mapping[str, Mapping[str, Tensor]]) -> None:
        preprocessing = record.preprocessing(self.model) or {}
        names = record.classes(self.model) or []
        for b in self._missing():
            image = batch.images[b]
            if image.ndim != 3:
                return
            picture = picture_of(image, preprocessing.get("mean"), preprocessing.get("std"))
            grids = {name: found for name, grids in self._grids.items() if (found := grids[b]) is not None}
            own = {
                name: {figure: float(of_block[figure][b]) if figure in of_block else math.nan for figure in FIGURES}
                for name, of_block in figures.items()
            }
            label = -1 if labels is None else int(labels[b])
            self.kept.append(KeptImage(batch.names[b], _class(names, label), picture, grids, own))


def _class(names: list[str], label: int) -> str | None:
    """-1 is a common mark for "no class"."""
    return None if label < 0 else names[label] if label < len(names) else str(label)


def _prefix(model: nn.Module, name: str) -> int:
    """How many class and register tokens come first, as the transformer around the attention says."""
    while name:
        name = name.rpartition(".")[0]
        around = model.get_submodule(name)
        count = getattr(around, "num_prefix_tokens", None)
        if isinstance(count, int):
            return count
        if isinstance(getattr(around, "class_token", None), Tensor):
            return 1
    return 0


def _nothing(count: int, unreadable: dict[str, str], skipped: dict[str, str]) -> str:
    if count:
        reasons = some((f"{name} ({reason})" for name, reason in skipped.items()), 4)
        return f"images: none of the blocks could be read on them: {reasons or 'no block was called'}"
    first = next(iter(unreadable.items()), None)
    return "images holds no image" + (f" that can be read; the first: {first[0]}: {first[1]}" if first else "")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
