"""`simplify`: a trained model in; out comes one whose non-local blocks have one map per image where that is enough."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import GcnetTypeError, RewriteError
from gcnet.rewrites.simplification.calibration import Errors, Mean, distil, divide, output_error, refined, watch
from gcnet.rewrites.simplification.closed_forms import closed_form, forms, kind_of, reason_to_keep, structure
from gcnet.rewrites.simplification.decisions import Decisions
from gcnet.rewrites.simplification.judging import Forms, exchanged, judge
from gcnet.rewrites.simplification.one_map import added
from gcnet.rewrites.simplification.report import Simplification, SimplifiedBlock
from gcnet.surgery import record
from gcnet.surgery.eager import check_model
from gcnet.surgery.probe import evaluating, like
from gcnet.surgery.timing import time_side_by_side

IMAGES = 8  # at most, where a block is timed


def simplify(model: nn.Module, batches: Any, *, max_error: float = 0.02, refine_steps: int = 0) -> nn.Module:
    """Return a copy of a trained model whose non-local blocks use one attention map per image where that is enough.

    A non-local block whose map hardly depends on the query (arXiv 1904.11492, section 3.2) is replaced, in closed form
    and without training, by one whose query is the mean query: that of all calibration images ("shared", the block
    becomes a `ContextBlock` of SNL's form, which `fold` can merge), or that of each image ("image"). Time falls from
    O(P^2 C) to O(P C). All blocks are measured on images that were held out, and one that loses more than `max_error`
    allows is kept. Known are `NonLocal` in its four forms and `DisentangledNonLocal`; for blocks of timm and mmcv call
    `gcnet.accelerate` first.

    Inside a replaced block the parameters get new names: `key`, `add.reduce`, `add.expand`, and `query` for the form
    "image"; all other names stay. Build optimisers afterwards, and `fold` afterwards.

    Args:
        model: trained, in any mode; it is run in eval mode. Its input is not altered.
        batches: images like those the model is used on; some hundreds, without labels. An iterable (also a generator)
            of input tensors (B, ...), or of tuples or lists whose first entry is the input, as loaders give them. They
            are all kept in memory, and moved to the model's device and floating-point type. Every fourth image is held
            out (of fewer than four the last).
        max_error: largest loss allowed on the held-out images. A block is replaced if its own error is at most this:
            |c' - c| / |c - m| in the 2-norm, with c what the block adds to its input, c' what the new one adds, m the
            mean of c over positions and images (`gcnet.rewrites.simplification.report.SimplifiedBlock` has the
            details); 0.02 keeps 99.96 % of what varies. Otherwise, if the model says that it gives class scores
            (`gcnet.rewrites.simplification.decisions.Decisions`), it is replaced if at most this share of its
            decisions changes by all replacements together, so that accuracy on these images cannot fall by more; that
            takes 3 / max_error decisions on the held-out images.
        refine_steps: steps of gradient descent, one batch each: so many in which every new block learns what the old
            one adds, before it is judged, then as many in which those that were chosen learn the model's outputs
            together (not in half precision). Each is used only where it makes the held-out error smaller.

    Returns:
        A new model with the same device, dtype and modes, and a `report`
        (`gcnet.rewrites.simplification.report.Simplification`): for every block whether it was replaced, why not,
        its errors and how much faster the new one is.

    Raises:
        RewriteError: no non-local block, a folded model, fewer than two images, a setting out of its range.
        TypeError: a model that is compiled, scripted or wrapped, or batches of another kind.

    Example:
        >>> import torch
        >>> from gcnet.blocks import NonLocal
        >>> block = NonLocal(16)
        >>> _ = torch.nn.init.zeros_(block.theta.weight)
        >>> model = simplify(torch.nn.Sequential(block), [torch.randn(8, 16, 6, 6)])
        >>> model.report.replaced, type(model[0]).__name__
        (['0'], 'ContextBlock')
    """
    check_model(model)
    _check(max_error, refine_steps)
    _find(model)
    with torch.inference_mode(False):
        result, report = _simplified(model, batches, float(max_error), refine_steps)
    result.report = replace(report, blocks=tuple(_timed(entry, model, result) for entry in report.blocks))
    record.add_rewrite(
        result,
        {
            "rewrite": "simplify",
            "replaced": {entry.name: entry.form for entry in report.blocks if entry.replaced},
            "kept": report.kept,
            "max_error": report.max_error,
            "refine_steps": refine_steps,
        },
    )
    return result


def replay(model: nn.Module, rewrite: Mapping[str, Any]) -> nn.Module:
    """Do a `simplify` on record again without images: the same blocks in the same forms, weights yet to be filled.

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
    result = exchanged(result, chosen)
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


def _simplified(model: nn.Module, batches: Any, max_error: float, refine_steps: int) -> tuple[Any, Simplification]:
    """The new model, and the report without times."""
    fit, held = divide(batches, like(model))
    original = copy.deepcopy(model).eval()
    blocks = _find(original)
    made = _made(original, fit, [block for block in dict.fromkeys(blocks.values()) if reason_to_keep(block) is None])
    if refine_steps:
        for block, own in refined(original, fit, made, refine_steps).items():
            made[block] |= {f"{label}, refined": form for label, form in own.items()}
    errors = {block: Errors() for block in made}
    watch(original, held, made, lambda block, x: errors[block].add(x, block.context(x), made[block]))
    called = {block: own for block, own in errors.items() if own.images}
    decisions = Decisions(original, held)
    judged = judge(original, blocks, made, called, decisions, max_error)
    chosen = {name: made[block][judged[block].label] for name, block in blocks.items() if judged[block].replaced}
    result = exchanged(copy.deepcopy(model), chosen)
    with evaluating(result):
        difference = output_error(original, result, held) if chosen else 0.0
        distilled = None
        changed = decisions.changed(result) if decisions.count else None
        if refine_steps and difference and like(model).dtype in (torch.float32, torch.float64):
            undistilled = [copy.deepcopy(block.state_dict()) for block in chosen.values()]
            distil(original, result, fit, list(chosen.values()), refine_steps)
            distilled = output_error(original, result, held)
            now = decisions.changed(result) if decisions.count else None
            more = now is not None and changed is not None and now > max(max_error, changed)
            if distilled is None or not distilled < difference or more:
                distilled = None
                for block, state in zip(chosen.values(), undistilled, strict=True):
                    block.load_state_dict(state)
            else:
                changed = now
    return result, Simplification(
        blocks=tuple(replace(judged[block], name=name) for name, block in blocks.items()),
        max_error=max_error,
        refine_steps=refine_steps,
        images=(sum(map(len, fit)), sum(map(len, held))),
        output_error=difference if distilled is None else distilled,
        distilled=distilled is not None,
        changed=changed,
        decisions=decisions.count,
    )


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


def _timed(entry: SimplifiedBlock, model: nn.Module, result: nn.Module) -> SimplifiedBlock:
    """The entry of a replaced block with the time of the old one over that of the new one."""
    if not entry.replaced or entry.shape is None:
        return entry
    old, new = model.get_submodule(entry.name), result.get_submodule(entry.name)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(min(entry.shape[0], IMAGES), *entry.shape[1:], generator=generator).to(next(new.parameters()))
    ratio = time_side_by_side({"old": old, "new": new}, x, budget=2.0)["new"].ratio
    return replace(entry, speed_up=(1 / ratio.value, 1 / ratio.high, 1 / ratio.low))
