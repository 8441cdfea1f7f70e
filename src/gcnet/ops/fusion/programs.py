"""The Triton programs of the epilogue: one pass forward; backward one pass that also leaves the sums over positions."""
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from gcnet.ops.triton_tiles import sizes, tile_offsets


@triton.jit
def fuse_forward(
    x_ptr,
    scale_ptr,
    shift_ptr,
    residual_ptr,
    out_ptr,
    units,
    outer,
    tiles_c,
    tiles_p,
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    C, P = sizes(units, outer, ALIGN, CHANNELS_LAST)
    at = tl.program_id(0)
    image = (at // (tiles_c * tiles_p)).to(tl.int64)
    at = at % (tiles_c * tiles_p)
    if CHANNELS_LAST:  # neighbouring programs read neighbouring memory
        tile_c, tile_p = at % tiles_c, at // tiles_c
    else:
        tile_c, tile_p = at // tiles_p, at % tiles_p
    c, p = tile_c * BLOCK_C + tl.arange(0, BLOCK_C), tile_p * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = (c < C)[:, None] & (p < P)[None, :]
    offsets = image * C * P + tile_offsets(c, p, units, ALIGN, CHANNELS_LAST)
    out = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if scale_ptr is not None:
        out *= tl.load(scale_ptr + image * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    if shift_ptr is not None:
        out += tl.load(shift_ptr + image * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    if residual_ptr is not None:
        out += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        out = tl.where(out < 0.0, 0.0, out)  # NaN stays, as in PyTorch
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def fuse_backward(
    grad_ptr,
    x_ptr,
    scale_ptr,
    out_ptr,
    grad_x_ptr,
    masked_ptr,
    scale_sum_ptr,
    shift_sum_ptr,
    units,
    outer,
    tiles_c,
    steps,
    ALIGN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """With m = grad where out > 0 (out None: everywhere): m * scale, m, and per split sum_p m x and sum_p m."""
    C, P = sizes(units, outer, ALIGN, CHANNELS_LAST)
    image, part = (tl.program_id(0) // tiles_c).to(tl.int64), tl.program_id(1)
    c = (tl.program_id(0) % tiles_c) * BLOCK_C + tl.arange(0, BLOCK_C)
    base = image * C * P
    scale_sum = tl.zeros([BLOCK_C], tl.float32)
    shift_sum = tl.zeros([BLOCK_C], tl.float32)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + image * C + c, mask=c < C, other=0.0).to(tl.float32)
    start = part * steps * BLOCK_P
    for at in range(start, tl.minimum(start + steps * BLOCK_P, P), BLOCK_P):
        p = at + tl.arange(0, BLOCK_P)
        mask = (c < C)[:, None] & (p < P)[None, :]
        offsets = base + tile_offsets(c, p, units, ALIGN, CHANNELS_LAST)
        grad = tl.load(grad_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        if out_ptr is not None:
            out = tl.load(out_ptr + offsets, mask=mask, other=0.0)
            grad = tl.where(out > 0.0, grad, 0.0)
        shift_sum += tl.sum(grad, axis=1)
        if masked_ptr is not None:
            tl.store(masked_ptr + offsets, grad.to(masked_ptr.dtype.element_ty), mask=mask)
        if scale_ptr is not None:
            x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
            scale_sum += tl.sum(grad * x, axis=1)
            tl.store(grad_x_ptr + offsets, (grad * scale[:, None]).to(grad_x_ptr.dtype.element_ty), mask=mask)
    row = (image * tl.num_programs(1) + part) * C
    if scale_sum_ptr is not None:
        tl.store(scale_sum_ptr + row + c, scale_sum, mask=c < C)
    if shift_sum_ptr is not None:
        tl.store(shift_sum_ptr + row + c, shift_sum, mask=c < C)
