"""What a comparison varies: the block itself, or one option of it, with the model without a block as the yardstick."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gcnet.recipes.settings import Settings

NONE = "none"
_PLACES = ("stages", "at", "where", "position")  # arguments of insert; every other axis is an option of the block


@dataclass(frozen=True)
class Variant:
    """One row of a comparison: its label, the name of its folder, and the settings all its runs share."""

    label: str
    folder: str
    settings: Settings


def make_variants(
    settings: Settings, *, blocks: Sequence[str], axis: str | None, values: Sequence[Any] | None
) -> tuple[Variant, ...]:
    """The rows of a comparison; the first one is what the others are compared with.

    Args:
        settings: what all rows share.
        blocks: names of blocks, "none" for the model as it is; used when `axis` is None or "block". "none" goes first.
        axis: "block", an argument of `insert` (stages, at, where, position) or an option of `settings.block`. For an
            axis other than "block" a row "none", the model without the block, is put first.
        values: the values on the axis.

    Raises:
        ValueError: no values, a value twice, values without an axis, an axis without a block.
    """
    if axis is None or axis == "block":
        if axis is None and values is not None:
            raise ValueError(f"values={list(values)!r} needs axis, the name of what takes these values")
        names = [str(value) for value in (blocks if values is None else values)]
        ordered = sorted(names, key=lambda name: name != NONE)
        variants = [_without_block(settings) if name == NONE else _with_block(settings, name) for name in ordered]
    else:
        if settings.block is None:
            raise ValueError(f"axis={axis!r} varies how a block is put in; name it with block (such as block='gc')")
        variants = [_without_block(settings), *(_at_value(settings, axis, value) for value in values or ())]
        if not values:
            raise ValueError(f"axis={axis!r} needs values, such as values=[4, 8, 16]")
    if not variants:
        raise ValueError("blocks is empty; name at least one block, or 'none'")
    folders = [variant.folder for variant in variants]
    twice = next((variant.label for variant in variants if folders.count(variant.folder) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice; name every block or value once")
    return tuple(variants)


def _without_block(settings: Settings) -> Variant:
    plain = replace(settings, block=None, stages=None, at=None, where=None, position=None, block_options={})
    return Variant(NONE, NONE, plain)


def _with_block(settings: Settings, name: str) -> Variant:
    return Variant(name, _folder(name), replace(settings, block=name))


def _at_value(settings: Settings, axis: str, value: Any) -> Variant:
    if axis == "stages":
        value = tuple(value.split("+")) if isinstance(value, str) else tuple(value)
        text = "+".join(value)
    else:
        text = str(value)
    if axis in _PLACES:
        changed = replace(settings, **{axis: value})
    else:
        changed = replace(settings, block_options={**settings.block_options, axis: value})
    label = f"{axis}={text}"
    return Variant(label, _folder(label), changed)


def _folder(label: str) -> str:
    """A name that every file system takes.

    Example:
        >>> _folder("at=stage*.conv"), _folder("../x")
        ('at-stage-.conv', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", label.replace("=", "-")).strip(".-") or "variant"
