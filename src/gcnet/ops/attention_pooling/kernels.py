"""Attention pooling on the GPU: custom ops around the Triton programs, with fakes and autograd.

Forward: one read of the map (online softmax, positions split over programs), and a small kernel that combines the
splits. Backward: one read of the map and one write. A program holds all channels of a few positions at a time, so the
channels are limited (MAX_CHANNELS); wider maps take the PyTorch path. B images, C channels, P positions, S splits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gcnet.ops.triton_runtime import MAX_SPLITS, dense, in_layout_of, launch, layout, power_of_two, serves, slots, split

MAX_CHANNELS = 4096


class Tile(NamedTuple):
    """What one program holds at a time, and how it is launched."""

    block_p: int
    warps: int
    stages: int  # one more than the tiles that are on their way from memory
    per_processor: int  # programs that fit on one multiprocessor at a time


def available(x: Tensor) -> bool:
    """Whether the kernels serve this map: CUDA, float32 or half precision, C <= MAX_CHANNELS, Triton installed."""
    return serves(x) and x.shape[1] <= MAX_CHANNELS


def forward_tile(channels: int, itemsize: int, channels_last: bool) -> Tile:
    """The tile for a map with so many channels of so many bytes.

    A Hopper processor needs about 25 KiB on their way to keep up with its memory: two tiles of 32 KiB while a third is
    in registers, or of 64 KiB where positions are contiguous and longer rows save sectors. More than 16,384 numbers
    take 512 threads, else they spill (compiled for sm_90 by Triton 3.9).
    """
    block_c = power_of_two(channels)
    wanted = (32768 if channels_last else 65536) // (block_c * itemsize)
    block_p = min(max(wanted, 4 if channels_last else 16), 128, max(32768 // block_c, 1))
    numbers = block_c * block_p
    warps = 4 if numbers <= 8192 else 8 if numbers <= 16384 else 16
    return Tile(block_p, warps, 3 if numbers * itemsize <= 65536 else 1, 2 if numbers * itemsize <= 32768 else 1)


def backward_tile(channels: int, itemsize: int) -> Tile:
    """At most 32 KiB and 16,384 numbers: up to two maps are read, and the gradient needs registers too."""
    block_c = power_of_two(channels)
    block_p = min(max(32768 // (block_c * itemsize), 1), 16384 // block_c, 128)
    return Tile(block_p, 4 if block_c * block_p <= 8192 else 8, 3, 1)


@torch.library.custom_op("gcnet::attention_pool", mutates_args=())
def attention_pool_op(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(context (B, C) in the dtype of x, the same in float32, log-sum-exp of the logits (B,) in float32)."""
    from gcnet.ops.attention_pooling import programs

    tile = forward_tile(x.shape[1], x.element_size(), layout(dense(x)).channels_last)
    outputs = _outputs(x)
    if x.shape[0] == 0:
        return outputs
    parts = pool_parts(x, weight, tile)
    B, splits, C = parts[0].shape
    block_c = min(4096 // power_of_two(splits), 256)
    launch(
        programs.pool_combine,
        (B, -(-C // block_c)),
        *parts,
        *outputs,
        C,
        splits,
        SPLITS=power_of_two(splits),
        BLOCK_C=block_c,
        num_warps=4,
    )
    return outputs


def pool_parts(
    x: Tensor, weight: Tensor | None, tile: Tile, most_splits: int = MAX_SPLITS
) -> tuple[Tensor, Tensor, Tensor]:
    """The first launch, every split of the positions on its own: the state of its online softmax, see `pool_split`.

    x (B, C, *spatial) -> sums (B, S, C), top (B, S), total (B, S). weight None: average pooling.
    """
    from gcnet.ops.attention_pooling import programs

    x = dense(x)
    B, C, P = x.shape[0], x.shape[1], x.shape[2:].numel()
    steps, splits = split(B, -(-P // tile.block_p), min(slots(x, tile.per_processor), B * most_splits))
    state = torch.empty(B * splits * (C + 2), dtype=torch.float32, device=x.device)
    sums, top, total = state.split([B * splits * C, B * splits, B * splits])
    launch(
        programs.pool_split,
        (B, splits),
        x,
        None if weight is None else weight.contiguous(),
        sums,
        top,
        total,
        at=layout(x),
        steps=steps,
        ATTEND=weight is not None,
        BLOCK_C=power_of_two(C),
        BLOCK_P=tile.block_p,
        STAGES=tile.stages,
        num_warps=tile.warps,
    )
    return sums.view(B, splits, C), top.view(B, splits), total.view(B, splits)


def _outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, C = x.shape[:2]
    wide_BC, logsumexp_B = (x.new_empty(shape, dtype=torch.float32) for shape in ((B, C), (B,)))
    return x.new_empty(B, C), wide_BC, logsumexp_B


@attention_pool_op.register_fake
def _(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x)


@torch.library.custom_op("gcnet::attention_pool_backward", mutates_args=())
def attention_pool_backward_op(
    x: Tensor, weight: Tensor, logsumexp: Tensor, context: Tensor, grad_context: Tensor, grad_residual: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(grad_x, grad_weight); grad_residual, if given, is added to grad_x in the same pass. context in float32."""
    from gcnet.ops.attention_pooling import programs

    x = dense(x)
    grad_x = torch.empty_like(x)
    B, C, P = x.shape[0], x.shape[1], x.shape[2:].numel()
    if B == 0:
        return grad_x, torch.zeros_like(weight)
    tile = backward_tile(C, x.element_size())
    steps, splits = split(B, -(-P // tile.block_p), slots(x, tile.per_processor))
    parts_SC = torch.empty(B * splits, C, dtype=torch.float32, device=x.device)
    launch(
        programs.pool_backward,
        (B, splits),
        x,
        weight.contiguous(),
        logsumexp,
        context,
        grad_context.contiguous(),
        None if grad_residual is None else in_layout_of(x, grad_residual),
        grad_x,
        parts_SC,
        at=layout(x),
        steps=steps,
        BLOCK_C=power_of_two(C),
        BLOCK_P=tile.block_p,
        STAGES=tile.stages,
        num_warps=tile.warps,
    )
    return grad_x, parts_SC.sum(0).to(weight.dtype)


@attention_pool_backward_op.register_fake
def _(x: Tensor, weight: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dense(x)), torch.empty_like(weight, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output) -> None:
    _, wide_BC, logsumexp_B = output
    ctx.mark_non_differentiable(wide_BC, logsumexp_B)
    ctx.save_for_backward(*inputs, logsumexp_B, wide_BC)


def _backward(ctx, grad_context: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return attention_pool_backward_op(*ctx.saved_tensors, grad_context, None)


attention_pool_op.register_autograd(_backward, setup_context=_setup_context)


def attention_pool_kernels(x: Tensor, weight: Tensor) -> Tensor:
    """The context (B, C), differentiable once."""
    return attention_pool_op(x, weight)[0]


class _PoolAndSkip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        context_BC, wide_BC, logsumexp_B = attention_pool_op(x, weight)
        ctx.save_for_backward(x, weight, logsumexp_B, wide_BC)
        ctx.set_materialize_grads(False)
        return x.view_as(x), context_BC

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        grad_skip, grad_context = grads
        if grad_context is None:
            return grad_skip, None
        return attention_pool_backward_op(*ctx.saved_tensors, grad_context, grad_skip)


def attention_pool_and_skip(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(x, context): use this x in the residual sum, and the sum of its two gradients costs no pass of its own."""
    return _PoolAndSkip.apply(x, weight)  # type: ignore[return-value]
