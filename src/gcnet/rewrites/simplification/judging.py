"""Which blocks `simplify` replaces, and by which form: by a block's own error, else by what the model decides."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from gcnet.rewrites.simplification.calibration import Errors
from gcnet.rewrites.simplification.closed_forms import kind_of, reason_to_keep
from gcnet.rewrites.simplification.decisions import Decisions
from gcnet.rewrites.simplification.report import SimplifiedBlock
from gcnet.surgery import places, record

Forms = dict[str, Any]  # "shared", "image", and both "..., refined" -> replacement
Judged = dict[Any, tuple[SimplifiedBlock, str | None]]


def judge(
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    made: Mapping[Any, Forms],
    errors: Mapping[Any, Errors],
    decisions: Decisions,
    max_error: float,
) -> Judged:
    """For each block the report's entry without a name, and the label of the form that replaces it, if one does."""
    judged = {block: _alone(block, made.get(block, {}), errors.get(block), max_error) for block in blocks.values()}
    return judged | _by_decisions(model, blocks, made, judged, decisions, max_error)


def exchanged(model: nn.Module, chosen: Mapping[str, nn.Module]) -> nn.Module:
    """The model with the new blocks in it, each in the mode of the old one."""
    new: dict[nn.Module, nn.Module] = {}
    for name, block in chosen.items():
        old = model.get_submodule(name)
        record.carry(old, block)
        new[old] = block.train(old.training)
    return places.replace(model, new)


def _alone(
    block: nn.Module, made: Forms, errors: Errors | None, max_error: float
) -> tuple[SimplifiedBlock, str | None]:
    """Judge a block by its own error."""
    kind = str(kind_of(block))
    reason = reason_to_keep(block)
    if reason is None and errors is None:
        reason = "it was not called on the calibration images"
    if reason is not None or errors is None:
        return SimplifiedBlock("", kind, reason=reason), None
    figures = {label: errors.of(label) for label in made}
    best = _best({label: figure[0] for label, figure in figures.items()})
    fits = [label for label in best if figures[label][0] <= max_error]
    label = fits[0] if fits else min(best, key=lambda label: _rank(figures[label][0]))
    error, worst, with_constant = figures[label]
    if not fits:
        reason = f"the error {error:.2g} of its best form ({label}) is above max_error={max_error:g}"
        if errors.least() > max_error:
            reason += f"; with one vector per image none could be below {errors.least():.2g}"
        if math.isnan(error):
            reason = "its outputs on the calibration images are not all finite"
    entry = SimplifiedBlock(
        name="",
        kind=kind,
        replaced=bool(fits),
        form=label.split(",")[0],
        refined="refined" in label,
        error=error,
        errors={label: figure[0] for label, figure in figures.items()},
        worst_image=worst,
        least_error=errors.least(),
        error_with_constant=with_constant,
        reason=reason,
        shape=errors.shape,
    )
    return entry, label if fits else None


def _best(errors: Mapping[str, float]) -> list[str]:
    """Of each form, in the order they were made, the cheapest first: the label with the smaller error."""
    kinds = dict.fromkeys(label.split(",")[0] for label in errors)
    labels = [[label for label in errors if label.split(",")[0] == form] for form in kinds]
    return [min(own, key=lambda label: _rank(errors[label])) for own in labels]


def _by_decisions(
    original: nn.Module,
    blocks: Mapping[str, nn.Module],
    made: Mapping[Any, Forms],
    judged: Judged,
    decisions: Decisions,
    max_error: float,
) -> Judged:
    """Judge the blocks whose own error was too large by what the model decides with and without them.

    One after the other, that with the smallest error first, each together with all that were replaced before it: so it
    is the sum of all replacements that changes at most `max_error` of the decisions.
    """
    chosen = {block: label for block, (_, label) in judged.items() if label is not None}
    open_ = [block for block, (entry, label) in judged.items() if label is None and entry.error is not None]
    found = {}
    for block in sorted(open_, key=lambda block: _rank(judged[block][0].error or 0.0)):
        entry = judged[block][0]
        if math.isnan(entry.error or 0.0):
            continue
        if not decisions.count:
            found[block] = (
                replace(entry, reason=f"{entry.reason}; the model gives no class scores to judge it by"),
                None,
            )
            continue
        if not decisions.suffice(max_error):
            few = f"{decisions.count} held-out decisions are too few to judge it by (3 / max_error are needed)"
            found[block] = replace(entry, reason=f"{entry.reason}; {few}"), None
            continue
        shares: dict[str, float] = {}
        for label in _best(entry.errors):
            trial = chosen | {block: label}
            new = {name: made[own][trial[own]] for name, own in blocks.items() if own in trial}
            shares[label] = decisions.changed(exchanged(copy.deepcopy(original), new))
            if shares[label] <= max_error:
                chosen[block] = label
                break
        label = min(shares, key=lambda label: shares[label])
        entry = replace(
            entry,
            form=label.split(",")[0],
            refined="refined" in label,
            error=entry.errors[label],
            changed=shares[label],
        )
        if block in chosen:
            found[block] = replace(entry, replaced=True, reason=None), label
        else:
            reason = f"{entry.reason}; with it {shares[label]:.2g} of the model's decisions would change"
            found[block] = replace(entry, reason=reason), None
    return found


def _rank(error: float) -> float:
    return math.inf if math.isnan(error) else error
