"""The attention of one call of a block as its factors; maps are computed from them row by row.

B images, W windows, H heads, N = B * W * H, P queries, Q keys, D channels of a head, n rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gcnet.ops.distances.cosine import precise
from gcnet.ops.precision import without_autocast

Form = Literal["softmax", "dot_product", "concatenation"]


@dataclass(frozen=True)
class Attention:
    """Queries and keys, and how they become maps.

    Attributes:
        query: (B, W, H, P, D). For "concatenation" D = 1, its share w_f . [theta_i, 0] of the sum under the ReLU.
        key: (B, W, H, Q, D), for "concatenation" likewise.
        form: "softmax" (maps are distributions), "dot_product" or "concatenation" (they are not).
        scale: Factor on the products; one number, or (H, 1, 1).
        bias: Added to the logits, such as that of relative positions; None, or broadcasts to (B, W, H, P, Q).
        mask: Added too, but no part of the logits: 0, or -100 to -inf where a pair is excluded.
        unary: (B, W, H, Q), one more map for all queries beside the softmax, as in DNL; the map is the mean of both.
        grid: Height and width of the queries' positions and of the keys'; None where they are no 2D map.
        prefix: How many of the first keys are no positions (class and register tokens).
    """

    query: Tensor
    key: Tensor
    form: Form = "softmax"
    scale: float | Tensor = 1.0
    bias: Tensor | None = None
    mask: Tensor | None = None
    unary: Tensor | None = None
    grid: tuple[tuple[int, int], tuple[int, int]] | None = None
    prefix: int = 0

    def maps(self, images: slice) -> Maps:
        """The maps of some images."""
        _, W, H, P, _ = self.query.shape
        Q = self.key.shape[3]
        query = self.query[images]
        B = len(query)

        def part(t: Tensor, *shape: int) -> Tensor:
            own = t if t.ndim < len(shape) + 3 or len(t) == 1 else t[images]
            return precise(own).expand(B, W, H, *shape).reshape(-1, *shape)

        return Maps(
            query_NPD=precise(query).flatten(0, 2),
            key_NQD=precise(self.key[images]).flatten(0, 2),
            form=self.form,
            scale=part(self.scale, 1, 1) if isinstance(self.scale, Tensor) else self.scale,
            bias_NPQ=None if self.bias is None else part(self.bias, P, Q),
            mask_NPQ=None if self.mask is None else part(self.mask, P, Q),
            unary_NQ=None if self.unary is None else part(self.unary, Q),
        )


@dataclass(frozen=True)
class Maps:
    """N maps, those of images, windows and heads, computed on demand in float64."""

    query_NPD: Tensor
    key_NQD: Tensor
    form: Form
    scale: float | Tensor
    bias_NPQ: Tensor | None
    mask_NPQ: Tensor | None
    unary_NQ: Tensor | None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """N, P, Q."""
        return self.query_NPD.shape[0], self.query_NPD.shape[1], self.key_NQD.shape[1]

    def some(self, sets: slice) -> Maps:
        """Some of the N."""
        scale = self.scale[sets] if isinstance(self.scale, Tensor) else self.scale
        rest = (None if t is None else t[sets] for t in (self.bias_NPQ, self.mask_NPQ, self.unary_NQ))
        return Maps(self.query_NPD[sets], self.key_NQD[sets], self.form, scale, *rest)

    def logits(self, rows: Tensor | slice) -> Tensor:
        """(N, n, Q): what the softmax is taken of, without the mask; f itself in the other two forms."""
        query_NnD = self.query_NPD[:, rows]
        if self.form == "concatenation":
            return self.scale * (query_NnD + self.key_NQD.transpose(1, 2)).relu()
        with without_autocast(query_NnD):
            logits_NnQ = self.scale * (query_NnD @ self.key_NQD.transpose(1, 2))
        return logits_NnQ if self.bias_NPQ is None else logits_NnQ + self.bias_NPQ[:, rows]

    def weights(self, rows: Tensor | slice, *, logits: Tensor | None = None, factor: float = 1.0) -> Tensor:
        """(N, n, Q): the maps of some queries, the logits multiplied by `factor`."""
        logits_NnQ = factor * (self.logits(rows) if logits is None else logits)
        if self.form != "softmax":
            return logits_NnQ / logits_NnQ.shape[2]
        if self.mask_NPQ is not None:
            logits_NnQ = logits_NnQ + self.mask_NPQ[:, rows]
        weights_NnQ = logits_NnQ.softmax(dim=2)
        return weights_NnQ if self.unary_NQ is None else (weights_NnQ + self.unary_NQ[:, None]) / 2


@dataclass(frozen=True)
class Call:
    """What one call of a block read and made.

    Attributes:
        input: (B, W, P, C), the vectors at the positions.
        output: (B, W, P, C), the context before fusion; one position where it is the same at all.
        constant: (C,), the part of the output that does not depend on the input; None where it cannot be told.
        attention: Its maps.
    """

    input: Tensor
    output: Tensor
    constant: Tensor | None
    attention: Attention

    def without_prefix(self, count: int) -> Call:
        """Class and register tokens are no positions: no queries, though they stay keys."""
        attention = self.attention
        P, Q = attention.query.shape[3], attention.key.shape[3]
        if not count or P != Q or count >= P:
            return self

        def rows(t: Tensor | None) -> Tensor | None:
            return t if t is None or t.shape[-2] == 1 else t[..., count:, :]

        query, bias, mask = attention.query[..., count:, :], rows(attention.bias), rows(attention.mask)
        attention = replace(attention, query=query, bias=bias, mask=mask, prefix=count)
        return Call(self.input[:, :, count:], self.output[:, :, count:], self.constant, attention)


class Seen(NamedTuple):
    """A call as a hook is told of it, in a batch of so many images."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    images: int

    @property
    def x(self) -> Tensor:
        return self.args[0] if self.args else self.kwargs["x"]


Reader = Callable[[Any, Seen], Call]  # of a module and one of its calls


def shared_map(logits_BQ: Tensor, grid: tuple[int, ...]) -> Attention:
    """One map for all queries, softmax(logits), as that of a single query."""
    key = logits_BQ[:, None, None, :, None]
    spatial = ((1, 1), (grid[0], grid[1])) if len(grid) == 2 else None
    return Attention(torch.ones_like(key[..., :1, :]), key, grid=spatial)
