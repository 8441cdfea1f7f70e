"""The Triton programs of attention pooling. Everything is accumulated in float32; both memory layouts, one code."""
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from gcnet.ops.triton_tiles import sizes, tile_offsets


@triton.jit
def pool_split(
    x_ptr,
    weight_ptr,
    sum_ptr,
    top_ptr,
    total_ptr,
    units,
    outer,
    steps,
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    ATTEND: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Online softmax over `steps` tiles of all channels x BLOCK_P positions: the map is read once.

    Leaves for (image, split) the largest logit `top`, sum_j exp(logit_j - top) and sum_j exp(logit_j - top) x_j.
    Without ATTEND all logits are 0.
    """
    C, P = sizes(units, outer, ALIGN, CHANNELS_LAST)
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.arange(0, BLOCK_C)
    x_ptr += image * C * P
    if ATTEND:
        weight = tl.load(weight_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    top = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([BLOCK_C], tl.float32)
    start = part * steps * BLOCK_P
    for at in tl.range(start, tl.minimum(start + steps * BLOCK_P, P), BLOCK_P, num_stages=STAGES):
        p = at + tl.arange(0, BLOCK_P)
        mask = (c < C)[:, None] & (p < P)[None, :]
        x = tl.load(x_ptr + tile_offsets(c, p, units, ALIGN, CHANNELS_LAST), mask=mask, other=0.0)
        x = x.to(tl.float32)
        if ATTEND:
            logit = tl.where(p < P, tl.sum(x * weight[:, None], axis=0), -float("inf"))
        else:
            logit = tl.where(p < P, 0.0, -float("inf"))
        new_top = tl.maximum(top, tl.max(logit, axis=0))
        share = tl.exp(logit - new_top)
        rescale = tl.exp(top - new_top)
        total = total * rescale + tl.sum(share, axis=0)
        sums = sums * rescale + tl.sum(x * share[None, :], axis=1)
        top = new_top
    row = image * tl.num_programs(1) + part
    tl.store(sum_ptr + row * C + c, sums, mask=c < C)
    one = tl.arange(0, 1)
    tl.store(top_ptr + row + one, top)
    tl.store(total_ptr + row + one, total)


@triton.jit
def split_shares(top_ptr, total_ptr, image, splits, SPLITS: tl.constexpr):
    """exp(top_s - top) / total for all splits of an image, and log(sum_j exp(logit_j))."""
    s = tl.arange(0, SPLITS)
    tops = tl.load(top_ptr + image * splits + s, mask=s < splits, other=-float("inf"))
    totals = tl.load(total_ptr + image * splits + s, mask=s < splits, other=0.0)
    top = tl.max(tops, axis=0)
    rescale = tl.exp(tops - top)
    total = tl.sum(rescale * totals, axis=0)
    return rescale / total, top + tl.log(total)


@triton.jit
def pool_combine(
    sum_ptr,
    top_ptr,
    total_ptr,
    context_ptr,
    wide_ptr,
    logsumexp_ptr,
    C,
    splits,
    SPLITS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One softmax from those of the splits: the context in the map's dtype and in float32, and the log-sum-exp."""
    image, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, s = block * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, SPLITS)
    share, logsumexp = split_shares(top_ptr, total_ptr, image, splits, SPLITS)
    mask = (s < splits)[:, None] & (c < C)[None, :]
    sums = tl.load(sum_ptr + (image * splits + s)[:, None] * C + c[None, :], mask=mask, other=0.0)
    context = tl.sum(sums * share[:, None], axis=0)
    tl.store(wide_ptr + image * C + c, context, mask=c < C)
    tl.store(context_ptr + image * C + c, context.to(context_ptr.dtype.element_ty), mask=c < C)
    tl.store(logsumexp_ptr + image, logsumexp, mask=block == 0)


@triton.jit
def pool_backward(
    x_ptr,
    weight_ptr,
    logsumexp_ptr,
    context_ptr,
    grad_context_ptr,
    residual_ptr,
    grad_x_ptr,
    grad_weight_ptr,
    units,
    outer,
    steps,
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One read of the map and one write of its gradient (and one read of the residual's gradient, where there is one).

    With alpha_j = exp(w . x_j - logsumexp) and u_j = alpha_j g . (x_j - context): grad_x_j = alpha_j g + u_j w, and
    grad_w = sum_j u_j x_j = sum_j u_j (x_j - context), whose part over (image, split) is left for a deterministic sum.
    """
    C, P = sizes(units, outer, ALIGN, CHANNELS_LAST)
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.arange(0, BLOCK_C)
    base = image * C * P
    weight = tl.load(weight_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    grad = tl.load(grad_context_ptr + image * C + c, mask=c < C, other=0.0).to(tl.float32)
    context = tl.load(context_ptr + image * C + c, mask=c < C, other=0.0).to(tl.float32)
    logsumexp = tl.load(logsumexp_ptr + image)
    grad_weight = tl.zeros([BLOCK_C], tl.float32)
    start = part * steps * BLOCK_P
    for at in tl.range(start, tl.minimum(start + steps * BLOCK_P, P), BLOCK_P, num_stages=STAGES):
        p = at + tl.arange(0, BLOCK_P)
        mask = (c < C)[:, None] & (p < P)[None, :]
        offsets = tile_offsets(c, p, units, ALIGN, CHANNELS_LAST)
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        alpha = tl.where(p < P, tl.exp(tl.sum(x * weight[:, None], axis=0) - logsumexp), 0.0)
        away = x - context[:, None]  # not g . x_j - g . context: no cancellation where alpha is near 1
        u = alpha * tl.sum(away * grad[:, None], axis=0)
        grad_x = alpha[None, :] * grad[:, None] + u[None, :] * weight[:, None]
        if residual_ptr is not None:
            grad_x += tl.load(residual_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(grad_x_ptr + base + offsets, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)
        grad_weight += tl.sum(away * u[None, :], axis=1)  # sum_j u_j is 0
    tl.store(grad_weight_ptr + (image * tl.num_programs(1) + part) * C + c, grad_weight, mask=c < C)
