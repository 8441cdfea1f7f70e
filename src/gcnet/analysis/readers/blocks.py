"""Which modules of a model `analyze` can read, and how those of ours are read. Legend as in `attention.py`.

| class | what is read |
|---|---|
| NonLocal (four forms), DisentangledNonLocal | theta and phi, or query, key and the unary map |
| ContextBlock (gc, snl, se, context) | one map for all positions |
| timm NonLocalAttn, GlobalContext, SE; mmcv ContextBlock, NonLocal; torchvision SE | as ours, after conversion |
| torch MultiheadAttention, timm Attention and WindowAttention, torchvision's Swin | see `transformers.py` |
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gcnet.analysis.readers.attention import Attention, Call, Reader, Seen, shared_map
from gcnet.analysis.readers.transformers import FOREIGN
from gcnet.blocks import ContextBlock, DisentangledNonLocal, NonLocal
from gcnet.blocks.nonlocal_block import positions
from gcnet.ops.precision import accumulate_dtype, without_autocast
from gcnet.surgery.foreign import CannotConvertError, convert, is_foreign


def readers(model: nn.Module) -> tuple[dict[str, Reader], dict[str, str]]:
    """The modules that can be read, by name, and why others that look like attention cannot."""
    found: dict[str, Reader] = {}
    skipped: dict[str, str] = {}
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in (*found, *skipped) if outer) or "" in (*found, *skipped):
            continue
        if is_foreign(module):
            try:
                found[name] = _converted(convert(module))
            except CannotConvertError as reason:
                skipped[name] = f"{type(module).__name__}: {reason}"
            continue
        reader = _reader_of(type(module))
        if reader is not None:
            found[name] = reader
        elif type(module).__module__ == "gcnet.rewrites.folding.layers":
            skipped[name] = f"{type(module).__name__}: merged by fold; analyse the model before it"
        elif "attention" in type(module).__name__.lower() or "attn" in type(module).__name__.lower():
            skipped[name] = f"{type(module).__name__}: analyze does not know this kind of attention"
    return found, skipped


def _reader_of(kind: type) -> Reader | None:
    own = (OURS[base] for base in kind.__mro__ if base in OURS)
    return next(own, FOREIGN.get(f"{kind.__module__}.{kind.__qualname__}"))


def _converted(ours: nn.Module) -> Reader:
    """A foreign block is read through the block of ours that computes the same."""
    reader = OURS[ContextBlock if isinstance(ours, ContextBlock) else NonLocal]
    return lambda _, seen: reader(ours.eval(), seen)


def read_nonlocal(block: NonLocal, seen: Seen) -> Call:
    x = seen.x
    theta_BPD, phi_BQD, _ = block.embed(x)
    form: Any = "softmax" if block.pairwise in ("gaussian", "embedded_gaussian") else block.pairwise
    if block.concat_weight is not None:
        with without_autocast(x):
            wide = accumulate_dtype(theta_BPD)
            halves = block.concat_weight.to(wide).chunk(2)
            theta_BPD, phi_BQD = (
                (t.to(wide) @ half)[..., None] for t, half in zip((theta_BPD, phi_BQD), halves, strict=True)
            )
    keys = tuple(n if not block.subsample or n == 1 else n // 2 for n in x.shape[2:])
    attention = Attention(
        theta_BPD[:, None, None],
        phi_BQD[:, None, None],
        form,
        block.scale,
        grid=((x.shape[2], x.shape[3]), (keys[0], keys[1])) if x.ndim == 4 else None,
    )
    g = block.g.bias if form == "softmax" else torch.zeros_like(block.g.bias)  # those maps sum to one
    constant = _constant(block, g.to(block.g.weight))
    return Call(positions(x)[:, None], positions(block.context(x))[:, None], constant, attention)


def read_dnl(block: DisentangledNonLocal, seen: Seen) -> Call:
    x = seen.x
    x_BPC = positions(x)
    query_BPK, key_BPK = (t - t.mean(dim=1, keepdim=True) for t in (block.query(x_BPC), block.key(x_BPC)))
    unary_BP = block.mask(x_BPC)[..., 0].to(accumulate_dtype(x)).softmax(dim=1)
    size = (x.shape[2], x.shape[3]) if x.ndim == 4 else None
    attention = Attention(
        query_BPK[:, None, None],
        key_BPK[:, None, None],
        scale=block.scale,
        unary=unary_BP[:, None, None],
        grid=None if size is None else (size, size),
    )
    constant = _constant(block, 2 * block.value.bias)
    return Call(x_BPC[:, None], positions(block.context(x))[:, None], constant, attention)


def _constant(block: Any, v_V: Tensor) -> Tensor:
    """What the last layers, linear in eval mode, make of the values' constant part."""
    y_C = block.out(v_V)
    return y_C if block.norm is None else block.norm(y_C[None])[0]


def read_context(block: ContextBlock, seen: Seen) -> Call:
    x = seen.x
    x_BPC = positions(x)
    logits_BP = x_BPC[..., 0] * 0 if block.key is None else block.key(x_BPC)[..., 0]
    branch: Any = block.scale if block.add is None else block.add
    t_BC = branch(block.context(x))
    attention = shared_map(logits_BP, tuple(x.shape[2:]))
    return Call(x_BPC[:, None], t_BC[:, None, None], torch.zeros_like(t_BC[0]), attention)


OURS: dict[type, Reader] = {
    NonLocal: read_nonlocal,
    DisentangledNonLocal: read_dnl,
    ContextBlock: read_context,
}
