"""Maps of single images kept for looking at, on grids of at most 16x16. p queries, q keys of the grids, H heads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.analysis.readers.attention import Attention

SIDE = 16
MOST_IMAGES = 12
_PICTURE = 256


@dataclass(frozen=True)
class Grid:
    """The maps of one block on one image.

    A query of the grid is the position nearest to its cell's centre, its map is exact; the weights of the keys inside
    a cell of the key grid are added up. Stored as the maps themselves or, where that is smaller and no cell holds
    several keys, as the queries and keys that they are computed from.

    Attributes:
        queries: Height and width of the grid of queries; (1, 1) for a block with one map for all.
        keys: Height and width of the grid of keys.
        full: Height and width of the maps before.
        form: "softmax", "dot_product" or "concatenation"; only the first one's maps sum to one (tokens that are no
            positions, such as a class token, hold what is missing).
    """

    queries: tuple[int, int]
    keys: tuple[int, int]
    full: tuple[tuple[int, int], tuple[int, int]]
    form: str
    stored: Tensor | None
    factors: tuple[Tensor, Tensor] | None

    def places(self) -> tuple[Tensor, Tensor]:
        """Where the queries are: their rows from the top and their columns from the left, as fractions of the map."""
        rows, columns = ((centres(n, g) + 0.5) / n for n, g in zip(self.full[0], self.queries, strict=True))
        return rows, columns

    def held(self) -> tuple[Tensor, Tensor]:
        """How many rows and how many columns of keys each row and each column of the key grid holds.

        A cell's weight divided by the number of its keys is what can be compared between cells: 28 rows in 16 make
        cells of one row and of two.
        """
        rows, columns = (cells_of(n, g).bincount(minlength=g) for n, g in zip(self.full[1], self.keys, strict=True))
        return rows, columns

    def maps(self) -> Tensor:
        """(H, p, q), float32."""
        if self.stored is not None:
            return self.stored
        assert self.factors is not None
        query_HpD, key_HQD = self.factors
        weights_HpQ = (query_HpD @ key_HQD.transpose(1, 2)).softmax(dim=2)
        return weights_HpQ[:, :, -self.keys[0] * self.keys[1] :]


@dataclass(frozen=True)
class KeptImage:
    """One image, and its maps in every block whose positions are a 2D map.

    Attributes:
        name: Of its file, else its number.
        label: Name or number of its class, as given or predicted; None where there is none.
        picture: uint8 (3, h, w).
        grids: Block -> its maps; of a block that is called several times those of the first call.
        figures: Block -> figure -> value for this image, the mean over heads; see `gcnet.analyze`.
    """

    name: str
    label: str | None
    picture: Tensor
    grids: dict[str, Grid]
    figures: dict[str, dict[str, float]]


def grid_of(attention: Attention, b: int, size: tuple[int, int]) -> Grid | None:
    """The maps of image b of a batch; None where the positions are no 2D map, or lie in windows.

    The image's height and width tell those of tokens in a row.
    """
    _, W, _, P, D = attention.query.shape
    Q = attention.key.shape[3] - attention.prefix
    positions, places = attention.grid or ((1, 1) if P == 1 else _sides(P, size), _sides(Q, size))
    if W > 1 or positions is None or places is None:
        return None
    full = positions, places
    maps = attention.maps(slice(b, b + 1))
    queries, keys = ((min(height, SIDE), min(width, SIDE)) for height, width in full)
    rows = numbers((centres(n, g) for n, g in zip(full[0], queries, strict=True)), full[0][1])
    p, q = math.prod(queries), math.prod(keys)
    plain = attention.form == "softmax" and all(t is None for t in (maps.bias_NPQ, maps.mask_NPQ, maps.unary_NQ))
    if plain and q == Q and D * (p + Q + attention.prefix) < p * q:
        factors = (maps.scale * maps.query_NPD[:, rows]).float().cpu(), maps.key_NQD.float().cpu()
        return Grid(queries, keys, full, attention.form, None, factors)
    weights = maps.weights(rows)[:, :, attention.prefix :].cpu()
    cells = numbers((cells_of(n, g) for n, g in zip(full[1], keys, strict=True)), keys[1])
    stored = weights.new_zeros(*weights.shape[:2], q).index_add_(2, cells, weights).float()
    return Grid(queries, keys, full, attention.form, stored, None)


def _sides(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of `count` tokens of an image of that size."""
    height = max(1, round(math.sqrt(count * size[0] / size[1])))
    return (height, count // height) if count % height == 0 else None


def centres(n: int, g: int) -> Tensor:
    """Of n places in a row those nearest to the centres of g equal parts, (g,)."""
    return ((torch.arange(g) + 0.5) * n / g).long()


def cells_of(n: int, g: int) -> Tensor:
    """Of n places in a row for each which of g equal parts it lies in, (n,)."""
    return torch.arange(n) * g // n


def numbers(places: Iterable[Tensor], width: int) -> Tensor:
    """Of places in all these rows and columns their numbers in a map of that width, row by row."""
    rows, columns = places
    return (rows[:, None] * width + columns).flatten()


def picture_of(image: Tensor, mean: list[float] | None, std: list[float] | None) -> Tensor:
    """uint8 (3, h, w), at most 256 pixels a side: the normalisation undone where it is known, else stretched."""
    image = image.detach().float().cpu()[:3]
    if mean is not None and std is not None and len(image) == 3:
        image = image * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    elif image.min() < 0 or image.max() > 1:
        image = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-12)
    factor = _PICTURE / max(image.shape[1:])
    if factor < 1:
        image = F.interpolate(image[None], scale_factor=factor, mode="bilinear", antialias=True)[0]
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1).clone()
