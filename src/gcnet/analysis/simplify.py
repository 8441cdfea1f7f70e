"""`simplify` with the time of each replaced block, old and new side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gcnet.analysis.cost import time_side_by_side
from gcnet.rewrites.simplification.apply import simplify as simplify_untimed

IMAGES = 8


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
    result: Any = simplify_untimed(model, batches, max_error=max_error, refine_steps=refine_steps)
    blocks = []
    for entry in result.report.blocks:
        if entry.replaced:
            old, new = model.get_submodule(entry.name), result.get_submodule(entry.name)
            entry = replace(entry, speed_up=_speed_up(old, new, entry.shape))
        blocks.append(entry)
    result.report = replace(result.report, blocks=tuple(blocks))
    return result


def _speed_up(old: nn.Module, new: nn.Module, shape: tuple[int, ...]) -> tuple[float, float, float]:
    like = next(new.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(min(shape[0], IMAGES), *shape[1:], generator=generator).to(like)
    ratio = time_side_by_side({"old": old, "new": new}, x, budget=2.0)["new"].ratio
    return 1 / ratio.value, 1 / ratio.high, 1 / ratio.low
