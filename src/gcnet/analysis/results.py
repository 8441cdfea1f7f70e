"""What was found by measuring, as plain records: figures, verdicts, costs; how they look is no business of theirs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from gcnet.analysis.grids import KeptImage
from gcnet.analysis.intervals import Median
from gcnet.analysis.parts import Part
from gcnet.analysis.rows import Row
from gcnet.analysis.verdict import Verdict


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


@dataclass(frozen=True)
class BlockCost:
    """The parameters and MACs that one inserted block adds."""

    name: str
    kind: str
    params: int
    macs: int


@dataclass(frozen=True)
class Costs:
    """What one forward pass costs, with and without the inserted blocks; fields are explained at `gcnet.Profile`."""

    model: str
    input_size: tuple[int, ...]
    boxes: int | None
    device: str
    dtype: str
    params: int
    macs: int
    peak_memory: int
    latency: Median | None
    stages: tuple[Part, ...]
    blocks: tuple[BlockCost, ...]
    without: Costs | None
    ratio: Median | None

    def to_dict(self) -> dict[str, Any]:
        """The figures as numbers, texts, lists and dictionaries, for JSON."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["input_size"] = list(self.input_size)
        for name in ("latency", "ratio"):
            values[name] = None if values[name] is None else values[name]._asdict()
        for name in ("stages", "blocks"):
            values[name] = [dataclasses.asdict(row) for row in values[name]]
        values["without"] = None if self.without is None else self.without.to_dict()
        return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
