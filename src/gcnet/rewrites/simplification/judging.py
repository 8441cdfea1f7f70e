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
Judged = dict[Any, SimplifiedBlock]


def judge(
    model: nn.Module,
    blocks: Mapping[str, nn.Module],
    made: Mapping[Any, Forms],
    errors: Mapping[Any, Errors],
    decisions: Decisions,
    max_error: float,
) -> Judged:
    """For each block the report's entry, without a name."""
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


def _alone(block: nn.Module, made: Forms, errors: Errors | None, max_error: float) -> SimplifiedBlock:
    """Judge a block by its own error."""
    kind = str(kind_of(block))
    if errors is None:
        reason = reason_to_keep(block) or "it was not called on the calibration images"
        return SimplifiedBlock("", kind, reason=reason)
    figures = {label: errors.of(label) for label in made}
    best = _best({label: figure[0] for label, figure in figures.items()})
    fits = [label for label in best if figures[label][0] <= max_error]
    label = fits[0] if fits else min(best, key=lambda label: _rank(figures[label][0]))
    error, worst, with_constant = figures[label]
    reason = None
    if math.isnan(error):
        reason = "its outputs on the calibration images are not all finite"
    elif not fits:
        reason = f"the error {error:.2g} of its best form ({label}) is above max_error={max_error:g}"
        if errors.least() > max_error:
            reason += f"; with one vector per image none could be below {errors.least():.2g}"
    return SimplifiedBlock(
        name="",
        kind=kind,
        replaced=bool(fits),
        **_parts(label),
        error=error,
        errors={label: figure[0] for label, figure in figures.items()},
        worst_image=worst,
        least_error=errors.least(),
        error_with_constant=with_constant,
        reason=reason,
        shape=errors.shape,
    )


def _parts(label: str) -> dict[str, Any]:
    return {"form": label.split(",")[0], "refined": "refined" in label}


def _best(errors: Mapping[str, float]) -> list[str]:
    """Of each form, in the order they were made, the cheapest first: the label with the smaller error."""
    kinds = dict.fromkeys(label.split(",")[0] for label in errors)
    labels = [[label for label in errors if label.split(",")[0] == form] for form in kinds]
    return [min(own, key=lambda label: _rank(errors[label])) for own in labels]


def _rank(error: float | None) -> float:
    return math.inf if error is None or math.isnan(error) else error


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
    chosen = {block: entry.label for block, entry in judged.items() if entry.replaced}
    errors = {block: _rank(entry.error) for block, entry in judged.items() if not entry.replaced}
    found: Judged = {}
    for block in sorted(errors, key=lambda block: errors[block]):
        entry = judged[block]
        if entry.error is None or math.isnan(entry.error):
            continue
        shares: dict[str, float] = {}
        for label in _best(entry.errors) if decisions.suffice(max_error) else ():
            trial = chosen | {block: label}
            new = {name: made[own][trial[own]] for name, own in blocks.items() if own in trial}
            shares[label] = decisions.changed(exchanged(copy.deepcopy(original), new))
            if shares[label] <= max_error:
                chosen = trial
                break
        if not shares:
            few = f"{decisions.count} held-out decisions are too few to judge it by (3 / max_error are needed)"
            why = few if decisions.count else "the model gives no class scores to judge it by"
            found[block] = replace(entry, reason=f"{entry.reason}; {why}")
            continue
        label = min(shares, key=lambda label: shares[label])
        changed = shares[label]
        reason = f"{entry.reason}; with it {changed:.2g} of the model's decisions would change"
        found[block] = replace(
            entry,
            **_parts(label),
            replaced=block in chosen,
            error=entry.errors[label],
            changed=changed,
            reason=None if block in chosen else reason,
        )
    return found
