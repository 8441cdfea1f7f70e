"""The kept images as data for the page's script. H heads, p queries, q keys, Q keys with class tokens, D channels.

A grid becomes deflated bytes in base64, by the shorter of two ways:

- maps: low (H, p) and step (H, p), float32, then (H, p, q) bytes; a weight is low + step * byte;
- factors: queries (H, p, D), then keys (H, Q, D), 16-bit integers; a map is the softmax over keys of
  scale * query . key, of which the last q are shown. Only where that is at least as exact as 8 bits.
"""

from __future__ import annotations

import base64
import io
import math
import os
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gcnet.analysis.grids import SIDE, Grid, KeptImage, centres, numbers
from gcnet.analysis.measure import Findings
from gcnet.analysis.verdict import measure
from gcnet.report.page import data_url

# The page stays below 15 MB. 12 images x 13 blocks with 16x16 queries and keys and one head fit as they are; where
# many heads do not, the queries are thinned out, alike in all blocks.
BUDGET = 14_400_000
_SIDES = (SIDE, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1)
_LOSSLESS = 128 * 128  # pictures of at most so many pixels become PNG


def page_data(analysis: Findings) -> dict[str, Any]:
    """Blocks in the order of the table; images, each with a grid for every block, None where it has none."""
    names = short_names([image.name for image in analysis.kept])
    images = [_image(analysis, image, name) for image, name in zip(analysis.kept, names, strict=True)]
    room = BUDGET - sum(len(image["picture"]) for image in images)
    grids = next(found for side in _SIDES if (found := _grids(analysis, side, room)) is not None)
    shown = [{**image, "grids": own} for image, own in zip(images, grids, strict=True) if any(own)]
    return {"blocks": [_block(analysis, row) for row in analysis.table], "images": shown}


def _block(analysis: Findings, row: dict[str, Any]) -> dict[str, Any]:
    heads = [head for head in analysis.heads if head["block"] == row["block"]]
    return {
        "name": row["block"],
        "softmax": row["form"] == "softmax",
        "dependence": _dependence(row, row["form"]),
        "heads": [_dependence(head, row["form"]) for head in heads],
    }


def _image(analysis: Findings, image: KeptImage, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": image.label,
        "width": image.picture.shape[2],
        "height": image.picture.shape[1],
        "picture": _picture(image.picture),
        "dependence": [_dependence(image.figures.get(row["block"], {}), row["form"]) for row in analysis.table],
    }


def _dependence(figures: dict[str, float], form: str) -> float | None:
    name, factor = measure(form)
    value = figures.get(name, math.nan) * factor
    return round(value, 5) if math.isfinite(value) else None


def short_names(names: Sequence[str]) -> list[str]:
    """Names of files without the folders that all have in common, which are nobody else's business."""
    folders = {os.path.dirname(name) for name in names}
    if len({os.path.isabs(folder) for folder in folders}) != 1:
        return list(names)
    common = os.path.commonpath(folders)
    return [os.path.relpath(name, common) for name in names] if common else list(names)


def _grids(analysis: Findings, side: int, room: int) -> list[list[dict[str, Any] | None]] | None:
    """Of every image and block, with at most side x side queries; None if they take more than `room` characters."""
    found = []
    for image in analysis.kept:
        grids = [image.grids.get(row["block"]) for row in analysis.table]
        packed = [None if grid is None else pack(grid, side) for grid in grids]
        room -= sum(len(grid["data"]) for grid in packed if grid is not None)
        if room < 0 and side > 1:
            return None
        found.append(packed)
    return found


def pack(grid: Grid, side: int) -> dict[str, Any] | None:
    """A grid for the page with at most side x side of its queries; None if its maps are not finite."""
    sides = [min(n, side) for n in grid.queries]
    rows, columns = (centres(n, g) for n, g in zip(grid.queries, sides, strict=True))
    chosen = numbers((rows, columns), grid.queries[1])
    maps_Hpq = grid.maps()[:, chosen]
    if not bool(maps_Hpq.isfinite().all()):
        return None
    places = grid.places()
    found = {
        "queries": sides,
        "keys": list(grid.keys),
        "full": [list(size) for size in grid.full],
        "held": [count.tolist() for count in grid.held()],
        "rows": [round(v, 4) for v in places[0][rows].tolist()],
        "columns": [round(v, 4) for v in places[1][columns].tolist()],
        "heads": len(maps_Hpq),
    }
    low_Hp, step_Hp, bytes_Hpq = _in_bytes(maps_Hpq)
    found["data"] = _deflated(low_Hp, step_Hp, bytes_Hpq)
    if grid.factors is not None:
        factors = _as_factors((grid.factors[0][:, chosen], grid.factors[1]), maps_Hpq, step_Hp)
        if factors is not None and len(factors["data"]) < len(found["data"]):
            found |= factors
    return found


def _in_bytes(maps_Hpq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    low, high = maps_Hpq.aminmax(dim=2)
    step = (high - low) / 255
    levels = (maps_Hpq - low[..., None]) / step.clamp_min(1e-30)[..., None]
    return low, step, levels.round().clamp(0, 255).to(torch.uint8)


def _as_factors(factors: tuple[Tensor, Tensor], maps_Hpq: Tensor, step_Hp: Tensor) -> dict[str, Any] | None:
    """Integers for queries and keys; None where the maps made of them would be less exact than bytes."""
    steps = [max(float(t.abs().max()) / 32767, 1e-30) for t in factors]
    query_HpD, key_HQD = ((t / step).round().to(torch.int16) for t, step in zip(factors, steps, strict=True))
    scale = steps[0] * steps[1]
    logits_HpQ = scale * (query_HpD.float() @ key_HQD.float().transpose(1, 2))
    again_Hpq = logits_HpQ.softmax(dim=2)[:, :, -maps_Hpq.shape[2] :]
    if bool(((again_Hpq - maps_Hpq).abs() > step_Hp[..., None] / 2 + 1e-7).any()):
        return None
    sizes = {"channels": key_HQD.shape[2], "tokens": key_HQD.shape[1], "scale": scale}
    return sizes | {"data": _deflated(query_HpD, key_HQD)}


def _deflated(*tensors: Tensor) -> str:
    parts = b"".join(t.contiguous().numpy().astype(t.numpy().dtype.newbyteorder("<")).tobytes() for t in tensors)
    return base64.b64encode(zlib.compress(parts)).decode("ascii")


def _picture(picture: Tensor) -> str:
    image, buffer = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), io.BytesIO()
    kind = "png" if image.width * image.height <= _LOSSLESS else "jpeg"
    image.save(buffer, format=kind, **({"optimize": True} if kind == "png" else {"quality": 88}))
    return data_url(buffer.getvalue(), kind)
