"""What a comparison varies: the block itself, or one option of it, with the model without a block as the yardstick."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gcnet.analysis.comparison import PLAIN as NONE
from gcnet.analysis.published import AXES, ONE, Published, Row
from gcnet.analysis.published import NONE as PAPER_NONE
from gcnet.blocks.catalogue import block_options, list_blocks
from gcnet.errors import GcnetError
from gcnet.tasks.parts import BlockSettings
from gcnet.tasks.settings import Settings
from gcnet.tasks.table import spec

BLOCKS = (NONE, "se", "snl", "gc", "nl")  # compared where nothing else is asked for
_PLACES = ("stages", "at", "where", "position")  # arguments of insert; every other axis is an option of the block
_IN_STAGES = ("stages", "where", "position")
_NAMED = ("block", "bottleneck", "pool-fusion")  # axes whose values are names of rows; of the others they are values


@dataclass(frozen=True)
class Variant:
    """One row of a comparison: its label, the name of its folder, the settings all its runs share, the paper's row."""

    label: str
    folder: str
    settings: Settings
    published: Published | None = None


def make_variants(
    settings: Settings,
    *,
    blocks: Sequence[str] | None = None,
    axis: str | None = None,
    values: Sequence[Any] | None = None,
) -> tuple[Variant, ...]:
    """The rows of a comparison; the first one is what the others are compared with.

    Args:
        settings: what all rows share. The block that an axis varies is `settings.block`; on the paper's axes GC
            unless another is given.
        blocks: names of blocks, "none" for the model as it is, which goes first; used when `axis` is None, and as the
            values of the axis "block".
        axis: one of the paper's ablations (`gcnet.analysis.published.AXES`), an argument of `insert` (stages, at,
            where, position) or an option of the block. Unless the axis is "block", a row "none", the model without the
            block, is put first.
        values: the values on the axis; on one of the paper's axes those of the paper if None.

    Raises:
        ValueError: an unknown axis or value, no values, a value twice, values without an axis, an axis without a block.
    """
    if axis is None:
        if values is not None:
            raise GcnetError(f"values={list(values)!r} needs axis, the name of what takes these values")
        variants = [_with_block(settings, str(name)) for name in (BLOCKS if blocks is None else blocks)]
    elif axis == "block":
        chosen = values if values is not None else blocks if blocks is not None else list(AXES[axis])
        variants = [_of_blocks(settings, str(value)) for value in chosen]
    else:
        if blocks:
            raise GcnetError(f"blocks={list(blocks)!r} does not go with axis={axis!r}; its block is named by block")
        settings = _varied(settings, axis)
        chosen = list(AXES[axis]) if values is None and axis in AXES else values
        if not chosen:
            raise GcnetError(f"axis={axis!r} needs values, such as values=[4, 8, 16]")
        variants = [_with_block(settings, NONE), *(_at_value(settings, axis, value) for value in chosen)]
    if not variants:
        raise GcnetError("blocks is empty; name at least one block, or 'none'")
    variants.sort(key=lambda variant: variant.label != NONE)
    folders = [variant.folder for variant in variants]
    twice = next((variant.label for variant in variants if folders.count(variant.folder) > 1), None)
    if twice is not None:
        raise GcnetError(f"{twice!r} is there twice; name every block or value once")
    if axis not in AXES:
        return tuple(variants)
    return tuple(replace(variant, published=_published(variant, axis)) for variant in variants)


def _varied(settings: Settings, axis: str) -> Settings:
    """The settings with the block that the axis varies."""
    block = settings.block.name if settings.block.name is not None or axis not in AXES else "gc"
    if block is None and (axis in _PLACES or any(axis in _options(name) for name in list_blocks())):
        raise GcnetError(f"axis={axis!r} varies how a block is put in; name it with block (such as block='gc')")
    options = _options(block) if block is not None else ()
    if axis not in (*AXES, *_PLACES, *options):
        own = f"; the options of {block}: {', '.join(options)}" if options else "; an option of the block"
        places = ", ".join(name for name in _PLACES if name not in AXES)
        raise GcnetError(
            f"axis={axis!r} is unknown; use one of {', '.join(AXES)} (ablations of the paper); {places} (places){own}"
        )
    if spec(settings.task).spot is not None and axis in _IN_STAGES:
        fit = ", ".join(name for name in AXES if name not in _IN_STAGES)
        raise GcnetError(
            f"axis={axis!r}: the {settings.model.name} model has no stages; use {fit}, at, or an option of the block"
        )
    return replace(settings, block=block)


def _options(block: str) -> tuple[str, ...]:
    return tuple(name for name in block_options(block) if name not in ("device", "dtype"))


def _with_block(settings: Settings, name: str) -> Variant:
    """The model with the block where the settings put it, or without any."""
    if name == NONE:
        return Variant(NONE, NONE, replace(settings, block=BlockSettings()))
    return Variant(name, _folder(name), replace(settings, block=name))


def _of_blocks(settings: Settings, value: str) -> Variant:
    """A row of the axis "block": one of the paper's, or any block at its own place."""
    rows = AXES["block"]
    if value == NONE or (value in list_blocks() and value not in rows):
        return _with_block(settings, value)
    if value not in rows:
        raise GcnetError(
            f"values: {value!r} is none of axis='block'; use one of {', '.join(rows)} (rows of the paper), or a block: "
            f"{', '.join(list_blocks())}"
        )
    return Variant(value, _folder(value), _changed(settings, rows[value]))


def _at_value(settings: Settings, axis: str, value: Any) -> Variant:
    text = "+".join(value) if axis == "stages" and not isinstance(value, str) else str(value)
    rows = AXES.get(axis, {})
    if text in rows:
        changed = _changed(settings, rows[text])
    elif axis in _NAMED:
        raise GcnetError(f"values: {text!r} is none of axis={axis!r}; use {', '.join(rows)}")
    elif axis in _PLACES:
        changed = replace(settings, **{axis: tuple(text.split("+")) if axis == "stages" else value})
    else:
        changed = replace(settings, block_options={**settings.block.options, axis: value})
    label = text if axis in _NAMED else f"{axis}={text}"
    return Variant(label, _folder(label), changed)


def _changed(settings: Settings, row: Row) -> Settings:
    """The settings of one of the paper's rows; a model without stages says itself where one block goes."""
    place, options, spot = dict(row.place), dict(row.options), spec(settings.task).spot
    if spot is not None:
        place = dict(spot) if row.place == ONE else {}
        options.pop("subsample", None)  # its maps are of a few cells, each of which counts
    block = settings.block.name if row.block is None else row.block
    return replace(settings, block=block, block_options={**settings.block.options, **options}, **place)


def _published(variant: Variant, axis: str) -> Published | None:
    """The paper's figures of this row; None where other settings make it another one than the paper's."""
    if variant.label == NONE:
        return PAPER_NONE
    row = AXES[axis].get(variant.label.removeprefix(f"{axis}="))
    if row is None:
        return None
    clean = replace(_with_block(variant.settings, NONE).settings, block="gc")
    return row.published if _put_in(variant.settings) == _put_in(_changed(clean, row)) else None


def _put_in(settings: Settings) -> BlockSettings:
    """The block and its place; the gate is left out: the paper's starts at a half, ours as the identity."""
    options = {name: value for name, value in settings.block.options.items() if name != "gate"}
    return replace(settings.block, options=options)


def _folder(label: str) -> str:
    """A name that every file system takes.

    Example:
        >>> _folder("at=stage*.conv"), _folder("../x")
        ('at-stage-.conv', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", label.replace("=", "-")).strip(".-") or "variant"
