"""From figures of single images to rows with intervals. B images, H heads."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gcnet.analysis.figures import FIGURES, PER_HEAD, SCALED, SCALES, scaled
from gcnet.analysis.intervals import Moments, student_quantile
from gcnet.analysis.verdict import Verdict, measure, verdict

_NAMES = (*FIGURES, "positions", "queries", "keys", "att_jsd_variance", *(scaled(n, f) for f in SCALES for n in SCALED))
_NUMBER = {name: number for number, name in enumerate(_NAMES)}
_QUERY_MEAN = 1 << 8  # the components of an image's mean query are numbered from here on
_FIGURES, _HEADS, _BLOCKS, _CLASSES = 1 << 17, 1 << 8, 1 << 10, 1 << 18  # room in a key: 2^53 in all
_ALL = -1  # every class; the mean over heads

Row = dict[str, Any]


class Rows:
    """Collects the figures of a model's blocks.

    Args:
        blocks: their names, the same in every process.
        device: where the figures are; the state lives there too, if it can.
    """

    def __init__(self, blocks: Sequence[str], device: torch.device) -> None:
        self.blocks = list(blocks)
        self.moments = Moments("cpu" if device.type == "mps" else device)  # mps has no float64
        self._waiting: dict[str, list[dict[str, Tensor]]] = defaultdict(list)

    def add(self, block: str, figures: dict[str, Tensor]) -> None:
        """The figures of one call, of all images of a batch: (B,) or (B, H), or (B, components) for `query_mean`."""
        self._waiting[block].append(figures)

    def enter(self, labels: Tensor | None) -> dict[str, dict[str, Tensor]]:
        """The batch is complete. Calls of one block are averaged.

        Returns:
            Block -> figure -> (B,), the mean over heads of each of the batch's images.
        """
        keys, values = [], []
        found: dict[str, dict[str, Tensor]] = {block: {} for block in self._waiting}
        labels = None if labels is None else labels.to(self.moments.rows.device, torch.int64)
        for block, calls in self._waiting.items():
            for name, first in calls[0].items():
                t = first if len(calls) == 1 else torch.stack([call[name] for call in calls]).mean(dim=0)
                t = t.to(self.moments.rows.device, torch.float64)
                if name in FIGURES:
                    found[block][name] = t if t.ndim == 1 else t.mean(dim=1)
                for key, value in self._keyed(self.blocks.index(block), name, t, labels):
                    keys.append(key.expand(value.shape).reshape(-1))
                    values.append(value.reshape(-1))
        self._waiting.clear()
        if keys:
            self.moments.update(torch.cat(keys), torch.cat(values))
        return found

    def _keyed(self, block: int, name: str, t: Tensor, labels: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        if name == "query_mean":
            components = torch.arange(t.shape[1], device=t.device)
            return [(_key(_ALL, block, _ALL, _QUERY_MEAN + components), t)]
        found = []
        if t.ndim == 2:
            if name in PER_HEAD:
                found.append((_key(_ALL, block, torch.arange(t.shape[1], device=t.device), _NUMBER[name]), t))
            t = t.mean(dim=1)
        found.append((_key(_ALL, block, _ALL, torch.tensor(_NUMBER[name], device=t.device)), t))
        if labels is not None and name in FIGURES:
            of_one = (labels >= 0) & (labels < _CLASSES - 1)  # -1 is a common mark for "no class"
            found.append((_key(labels[of_one], block, _ALL, _NUMBER[name]), t[of_one]))
        return found

    def results(self) -> Results:
        """Over all images, those of other processes too."""
        found = {}
        for key, moments in self.moments.compute().items():
            key, number = divmod(key, _FIGURES)
            key, head = divmod(key, _HEADS)
            label, block = divmod(key, _BLOCKS)
            found[label - 1, self.blocks[block], head - 1, number] = moments
        return Results(self.blocks, found)


class Results:
    """Rows out of counts, means and sums of squared deviations by (class, block, head, figure)."""

    def __init__(self, blocks: list[str], moments: dict[tuple[int, str, int, int], tuple[int, float, float]]) -> None:
        self.moments = moments
        self.blocks = [name for name in blocks if (_ALL, name, _ALL, _NUMBER["att_cos"]) in moments]
        self.heads = {
            name: sum((_ALL, name, h, _NUMBER["att_cos"]) in moments for h in range(_HEADS - 1)) for name in blocks
        }

    def row(self, block: str) -> Row:
        """The figures of a block, the mean over its heads."""
        count = self._moments(block, "att_cos")[0]
        found: Row = {"images": count, "heads": self.heads[block]}
        found |= {name: self._moments(block, name)[1] for name in ("positions", "queries", "keys")}
        found |= self._figures(block, tuple(FIGURES))
        found["att_jsd_error"] = math.sqrt(self._moments(block, "att_jsd_variance")[1] / max(count, 1))
        between = [m for (c, b, _, n), m in self.moments.items() if c == _ALL and b == block and n >= _QUERY_MEAN]
        alone = not between or min(count for count, _, _ in between) < 2
        found["query_between"] = math.nan if alone else sum(square / (count - 1) for count, _, square in between)
        return found

    def head_rows(self, block: str) -> list[Row]:
        """The figures of each head."""
        return [{"head": head} | self._figures(block, PER_HEAD, head=head) for head in range(self.heads[block])]

    def scale_rows(self, block: str) -> list[Row]:
        """The distances with the logits multiplied by factors."""
        return [{"factor": factor} | self._figures(block, SCALED, factor=factor) for factor in sorted((1.0, *SCALES))]

    def classes(self) -> list[int]:
        return sorted({label for label, _, _, _ in self.moments if label != _ALL})

    def class_row(self, block: str, label: int) -> Row:
        return {"images": self._moments(block, "att_cos", label=label)[0]} | self._figures(
            block, tuple(FIGURES), label=label
        )

    def verdict(self, block: str, form: str) -> Verdict:
        name, factor = measure(form)
        heads = {}
        for head in range(self.heads[block]):
            figure = self._figures(block, (name,), head=head)
            heads[head] = tuple(factor * figure[key] for key in (name, f"{name}_low", f"{name}_high"))
        return verdict(heads, self._moments(block, "att_cos")[0])

    def _moments(self, block: str, name: str, *, head: int = _ALL, label: int = _ALL) -> tuple[int, float, float]:
        return self.moments.get((label, block, head, _NUMBER[name]), (0, math.nan, 0.0))

    def _figures(
        self, block: str, names: Sequence[str], *, head: int = _ALL, label: int = _ALL, factor: float = 1.0
    ) -> Row:
        """Means and 95 % intervals by Student's t, cut to the range of values; one image tells nothing beyond that."""
        row: Row = {}
        for name in names:
            measured = name if factor == 1 else scaled(name, factor)
            count, mean, square = self._moments(block, measured, head=head, label=label)
            low, high = FIGURES[name] if count else (math.nan, math.nan)
            if count > 1:
                half = student_quantile(count - 1) * math.sqrt(square / (count - 1) / count)
                low, high = max(low, mean - half), min(high, mean + half)
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return row


def _key(label: Tensor | int, block: int, head: Tensor | int, number: Tensor | int) -> Tensor:
    key = (((label + 1) * _BLOCKS + block) * _HEADS + head + 1) * _FIGURES + number
    assert isinstance(key, Tensor)
    return key
