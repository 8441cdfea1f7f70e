"""The Triton program that ends the context path of a folded block: combination of the splits, and the transform.

The pooling before it is `pool_split` of attention pooling. Everything is float32.
"""
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from gcnet.ops.attention_pooling.programs import split_shares


@triton.jit
def pooled(sum_ptr, share, image, splits, k, K, SPLITS: tl.constexpr):
    """Numbers k of the pooled vector: the parts of the splits, weighted."""
    s = tl.arange(0, SPLITS)
    mask = (s < splits)[:, None] & (k < K)[None, :]
    parts = tl.load(sum_ptr + (image * splits + s)[:, None] * K + k[None, :], mask=mask, other=0.0)
    return tl.sum(parts * share[:, None], axis=0)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        x = tl.where(x < 0.0, 0.0, x)
    if ACTIVATION == "silu":
        x = x / (1.0 + tl.exp(-x))
    if ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    if ACTIVATION == "hard_swish":
        x = x * tl.minimum(tl.maximum(x + 3.0, 0.0), 6.0) * (1.0 / 6.0)
    return x


@triton.jit
def combine_transform(
    sum_ptr,
    top_ptr,
    total_ptr,
    reduce_ptr,
    reduce_bias_ptr,
    norm_ptr,
    norm_bias_ptr,
    expand_ptr,
    expand_bias_ptr,
    out_ptr,
    K,
    H,
    C,
    splits,
    eps,
    ACTIVATION: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """BLOCK_C numbers of t for one image. Every program of an image forms the hidden vector again: it is small."""
    image, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    share, _ = split_shares(top_ptr, total_ptr, image, splits, SPLITS)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    if reduce_ptr is not None:
        h = tl.arange(0, BLOCK_H)
        hidden = tl.zeros([BLOCK_H], tl.float32)
        for at in range(0, K, BLOCK_K):
            k = at + tl.arange(0, BLOCK_K)
            mask = (h < H)[:, None] & (k < K)[None, :]
            weight = tl.load(reduce_ptr + h[:, None] * K + k[None, :], mask=mask, other=0.0).to(tl.float32)
            hidden += tl.sum(weight * pooled(sum_ptr, share, image, splits, k, K, SPLITS)[None, :], axis=1)
        if reduce_bias_ptr is not None:
            hidden += tl.load(reduce_bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)
        if norm_ptr is not None:
            mean = tl.sum(hidden, axis=0) / H  # numbers beyond H are zero
            away = tl.where(h < H, hidden - mean, 0.0)
            hidden = away / tl.sqrt(tl.sum(away * away, axis=0) / H + eps)
            hidden *= tl.load(norm_ptr + h, mask=h < H, other=0.0).to(tl.float32)
            if norm_bias_ptr is not None:
                hidden += tl.load(norm_bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)
        hidden = activate(hidden, ACTIVATION)
        mask = (c < C)[:, None] & (h < H)[None, :]
        weight = tl.load(expand_ptr + c[:, None] * H + h[None, :], mask=mask, other=0.0).to(tl.float32)
        out = tl.sum(weight * hidden[None, :], axis=1)
    else:
        out = tl.zeros([BLOCK_C], tl.float32)
        for at in range(0, K, BLOCK_K):
            k = at + tl.arange(0, BLOCK_K)
            mask = (c < C)[:, None] & (k < K)[None, :]
            weight = tl.load(expand_ptr + c[:, None] * K + k[None, :], mask=mask, other=0.0).to(tl.float32)
            out += tl.sum(weight * pooled(sum_ptr, share, image, splits, k, K, SPLITS)[None, :], axis=1)
    if expand_bias_ptr is not None:
        out += tl.load(expand_bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(out_ptr + image * C + c, out.to(out_ptr.dtype.element_ty), mask=c < C)
