"""`simplify`: a trained model in; out comes one whose non-local blocks have one map per image where that is enough."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetTypeError, RewriteError
from gcnet.rewrites.simplification.calibration import Errors, Mean, distil, divide, output_error, refined, watch
from gcnet.rewrites.simplification.closed_forms import closed_form, forms, kind_of, reason_to_keep, structure
from gcnet.rewrites.simplification.decisions import Decisions
from gcnet.rewrites.simplification.one_map import added
from gcnet.rewrites.simplification.report import Simplification, SimplifiedBlock
from gcnet.surgery import record
from gcnet.surgery.eager import check_model
from gcnet.surgery.probe import evaluating

Forms = dict[str, Any]  # "shared", "image", and both "..., refined" -> replacement


def simplify(model: nn.Module, batches: Any, *, max_error: float = 0.02, refine_steps: int = 0) -> nn.Module:
    """`gcnet.simplify` without the times in the report."""
    check_model(model)
    _check(max_error, refine_steps)
    _find(model)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    with torch.inference_mode(False):
        fit, held = divide(batches, like)
        original = copy.deepcopy(model).eval()
        blocks = _find(original)
        candidates = [block for block in dict.fromkeys(blocks.values()) if reason_to_keep(block) is None]
        made = _made(original, fit, candidates)
        if refine_steps:
            for block, own in refined(original, fit, made, refine_steps).items():
                made[block] |= {f"{label}, refined": form for label, form in own.items()}
        errors = _measured(original, held, made)
        judged = {block: _judged(block, made.get(block, {}), errors.get(block), max_error) for block in blocks.values()}
        decisions = Decisions(original, held)
        judged |= _by_decisions(original, blocks, made, judged, decisions, max_error)
        chosen = {name: made[block][label] for name, block in blocks.items() if (label := judged[block][1]) is not None}
        result = _replaced(copy.deepcopy(model), chosen)
        with evaluating(result):
            difference = output_error(original, result, held) if chosen else 0.0
            distilled = None
            if refine_steps and difference and like.dtype in (torch.float32, torch.float64):
                distilled = _distilled(
                    original, result, fit, held, list(chosen.values()), refine_steps, difference, decisions, max_error
                )
            changed = decisions.changed(result) if decisions.count else None
    entries = tuple(replace(judged[block][0], name=name) for name, block in blocks.items())
    counts = (sum(map(len, fit)), sum(map(len, held)))
    report = Simplification(
        blocks=entries,
        max_error=float(max_error),
        refine_steps=refine_steps,
        images=counts,
        output_error=difference if distilled is None else distilled,
        distilled=distilled is not None,
        changed=changed,
        decisions=decisions.count,
    )
    record.add_rewrite(
        result,
        {
            "rewrite": "simplify",
            "replaced": {entry.name: entry.form for entry in entries if entry.replaced},
            "kept": report.kept,
            "max_error": float(max_error),
            "refine_steps": refine_steps,
        },
    )
    result.report = report  # type: ignore[assignment]
    return result


def simplify_structure(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Repeat a `simplify` on record without images: the same blocks in the same forms, weights yet to be filled.

    Raises:
        RewriteError: the model has no such block, or the block no such form.
    """
    result = copy.deepcopy(model)
    blocks = dict(result.named_modules(remove_duplicate=False))
    new: dict[nn.Module, nn.Module] = {}
    chosen: dict[str, nn.Module] = {}
    for name, form in rewrite["replaced"].items():
        if name not in blocks or kind_of(blocks[name]) is None:
            raise RewriteError(f"the model has no non-local block {name!r}")
        block = blocks[name]
        new[block] = chosen[name] = new[block] if block in new else structure(block, form)
    result = _replaced(result, chosen)
    record.add_rewrite(result, dict(rewrite))
    return result


def _check(max_error: float, refine_steps: int) -> None:
    if isinstance(max_error, bool) or not isinstance(max_error, int | float):
        raise GcnetTypeError(f"max_error={max_error!r} is a {type(max_error).__name__}; give a number, such as 0.02")
    if not max_error >= 0:
        raise RewriteError(f"max_error={max_error!r} is not allowed; give a number from 0, such as 0.02 for 2 %")
    if isinstance(refine_steps, bool) or not isinstance(refine_steps, int) or refine_steps < 0:
        raise RewriteError(f"refine_steps={refine_steps!r} is not allowed; give a whole number from 0")


def _find(model: nn.Module) -> dict[str, nn.Module]:
    """All blocks that the report is to name, by name."""
    done = [rewrite["rewrite"] for rewrite in record.rewrites(model)]
    if "fold" in done:
        raise RewriteError("model: it is folded, so its blocks are merged; simplify first, then fold the result")
    found = {name: module for name, module in model.named_modules(remove_duplicate=False) if kind_of(module)}
    if not found:
        again = " any more (it was simplified before)" if "simplify" in done else ""
        raise RewriteError(
            f"model: this {type(model).__name__} holds no non-local block{again}; simplify looks for NonLocal and "
            "DisentangledNonLocal, and for those of timm and mmcv after gcnet.accelerate"
        )
    return found


def _made(model: nn.Module, fit: list[Any], blocks: list[Any]) -> dict[Any, Forms]:
    """The closed forms of each block that is called: with the mean query, then with the mean residual as bias."""
    means = {block: Mean() for block in blocks}
    watch(model, fit, blocks, lambda block, x: means[block].add(x.flatten(2).mean(2)))
    made: dict[Any, Forms] = {
        block: {form: closed_form(block, form, means[block].value) for form in forms(block)}
        for block in blocks
        if means[block].count
    }
    residuals: dict[Any, Mean] = {form: Mean() for own in made.values() for form in own.values()}

    def see(block: Any, x: Tensor) -> None:
        mean_BC = block.context(x).flatten(2).mean(2)
        for form in made[block].values():
            residuals[form].add(mean_BC - added(form, x).to(mean_BC.dtype))

    watch(model, fit, made, see)
    for form, residual in residuals.items():
        with torch.no_grad():
            form.add.expand.bias.add_(residual.value.to(form.add.expand.bias))
    return made


def _measured(model: nn.Module, held: list[Any], made: dict[Any, Forms]) -> dict[Any, Errors]:
    errors = {block: Errors() for block in made}
    watch(model, held, made, lambda block, x: errors[block].add(x, block.context(x), made[block]))
    return {block: own for block, own in errors.items() if own.images}


def _distilled(
    original: nn.Module,
    result: nn.Module,
    fit: list[Any],
    held: list[Any],
    new: list[nn.Module],
    steps: int,
    before: float,
    decisions: Decisions,
    max_error: float,
) -> float | None:
    """Bring the outputs of the result closer; the error of its outputs, or None where that did not help."""
    kept = [copy.deepcopy(block.state_dict()) for block in new]
    most = max(max_error, decisions.changed(result)) if decisions.count else 0.0
    distil(original, result, fit, new, steps)
    after = output_error(original, result, held)
    if after is not None and after < before and (not decisions.count or decisions.changed(result) <= most):
        return after
    for block, state in zip(new, kept, strict=True):
        block.load_state_dict(state)
    return None


def _judged(
    block: nn.Module, made: Forms, errors: Errors | None, max_error: float
) -> tuple[SimplifiedBlock, str | None]:
    """The report's entry without a name, and the label of the form that replaces the block, if one does."""
    kind = str(kind_of(block))
    reason = reason_to_keep(block)
    if reason is None and errors is None:
        reason = "it was not called on the calibration images"
    if reason is not None or errors is None:
        return SimplifiedBlock("", kind, reason=reason), None
    figures = {label: errors.of(label) for label in made}
    best = _best(block, {label: figure[0] for label, figure in figures.items()})
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


def _best(block: nn.Module, errors: Mapping[str, float]) -> list[str]:
    """Of each form, the cheapest first, the label with the smaller error: closed or refined."""
    labels = [[label for label in errors if label.split(",")[0] == form] for form in forms(block)]
    return [min(own, key=lambda label: _rank(errors[label])) for own in labels]


def _by_decisions(
    original: nn.Module,
    blocks: Mapping[str, nn.Module],
    made: Mapping[Any, Forms],
    judged: Mapping[Any, tuple[SimplifiedBlock, str | None]],
    decisions: Decisions,
    max_error: float,
) -> dict[Any, tuple[SimplifiedBlock, str | None]]:
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
        for label in _best(block, entry.errors):
            trial = chosen | {block: label}
            new = {name: made[own][trial[own]] for name, own in blocks.items() if own in trial}
            shares[label] = decisions.changed(_replaced(copy.deepcopy(original), new))
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


def _replaced(model: nn.Module, chosen: Mapping[str, nn.Module]) -> nn.Module:
    """Put the new blocks into the model, in its own copy of the old blocks' places and modes."""
    for name, new in chosen.items():
        old = model.get_submodule(name)
        record.carry(old, new)
        new.train(old.training)
        if not name:
            return new
        model.set_submodule(name, new)
    return model
