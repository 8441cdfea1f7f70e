"""COCO's two ways to write a mask, polygons and run lengths, as pixels; and pixels as run lengths.

N masks, H and W pixels.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcnet.errors import GcnetError


def check_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """The segmentation as it can be decoded: polygons with at least three corners, or run lengths of this size.

    Raises:
        ValueError: it is neither, or does not fit the image.
    """
    if isinstance(segmentation, dict):
        return _checked_runs(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise GcnetError("neither polygons nor run lengths")
    polygons = [part for part in segmentation if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]
    if not polygons:
        raise GcnetError("no polygon of at least three corners with finite coordinates")
    limit, outline = 16 * max(height, width), 0.0
    for part in polygons:
        try:
            numbers = array("d", part)
        except (TypeError, OverflowError):
            raise GcnetError("no polygon of at least three corners with finite coordinates") from None
        if not math.isfinite(sum(numbers)):
            raise GcnetError("no polygon of at least three corners with finite coordinates")
        low, high = min(numbers), max(numbers)
        if low < -limit or high > limit:
            raise GcnetError("corners far outside the image")
        outline += (high - low) * len(numbers)  # at the most
    if outline > 1000 * (height + width) and _outline(polygons) > 1000 * (height + width):
        raise GcnetError("an outline that is a thousand times as long as that of the image")  # it takes as long to draw
    return polygons


def _outline(polygons: Sequence[list[float]]) -> float:
    return sum(abs(a - b) for part in polygons for a, b in zip(part, part[2:] + part[:2], strict=True))


def decode_masks(segmentations: Sequence[Any], height: int, width: int) -> Tensor:
    """Checked segmentations as 0 and 1, uint8 (N, H, W)."""
    masks = torch.zeros(len(segmentations), height, width, dtype=torch.uint8)
    for index, segmentation in enumerate(segmentations):
        masks[index] = torch.from_numpy(_api().decode(runs_of(segmentation, height, width)))
    return masks


def runs_of(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A checked segmentation as compressed run lengths."""
    if isinstance(segmentation, list):
        return _api().merge(_api().frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return _api().frPyObjects(segmentation, height, width)
    return segmentation


def _checked_runs(runs: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    size, counts = runs.get("size"), runs.get("counts")
    if size != [height, width]:
        raise GcnetError(f"run lengths of size {size!r} for an image of {[height, width]}")
    if isinstance(counts, str):
        numbers = _decompress(counts, height * width)
    elif isinstance(counts, list) and all(type(number) is int for number in counts):
        numbers = counts
    else:
        raise GcnetError("counts are neither text nor whole numbers")
    if len(numbers) > height * width + 2:
        raise GcnetError("more run lengths than pixels")
    if any(number < 0 for number in numbers) or sum(numbers) != height * width:
        raise GcnetError("run lengths that do not add up to the image")
    return {"size": size, "counts": counts}


def _decompress(text: str, pixels: int) -> list[int]:
    """The run lengths in COCO's compressed text, read here in order to be checked: the decoder trusts its input."""
    if len(text) > 7 * (pixels + 2):
        raise GcnetError("compressed run lengths of more text than pixels can need")
    numbers: list[int] = []
    number = shift = 0
    for byte in text.encode("ascii", "replace"):
        code = byte - 48
        if not 0 <= code < 64:
            raise GcnetError("text that is no compressed run lengths")
        number |= (code & 31) << shift
        shift += 5
        if shift > 35:  # seven letters hold any number of pixels
            raise GcnetError("run lengths that do not add up to the image: a compressed number without an end")
        if not code & 32:
            if code & 16:
                number -= 1 << shift
            numbers.append(number + (numbers[-2] if len(numbers) > 2 else 0))
            number = shift = 0
    if shift:
        raise GcnetError("compressed run lengths that break off")
    return numbers


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) of 0 and 1 as compressed run lengths whose text JSON can hold."""
    runs = _api().encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = runs["counts"]
    return {"size": list(runs["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _api() -> Any:
    # Only masks need the package, which comes with gcnet[train]; reading boxes and classes does without.
    from faster_coco_eval import mask

    return mask
