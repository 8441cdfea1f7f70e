"""The epilogue on the GPU in one pass, as custom ops with fakes and autograd. B images, C channels, P positions."""

import torch
from torch import Tensor

from gcnet.ops.triton_runtime import dense, in_layout_of, launch, layout, power_of_two, serves, slots, split

TILE = 4096  # numbers per program at a time


def available(x: Tensor) -> bool:
    """Whether the kernel serves this map. Not while compiling: Inductor makes one pass of the plain form by itself."""
    return serves(x) and not torch.compiler.is_compiling()


def _blocks(x: Tensor, channels_last: bool, row: int) -> tuple[int, int]:
    """(channels, positions) of a tile whose contiguous side is at most `row` long."""
    C, P = x.shape[1], x.shape[2:].numel()
    inner = min(power_of_two(C if channels_last else P), row)
    other = min(power_of_two(P if channels_last else C), TILE // inner)
    return (inner, other) if channels_last else (other, inner)


@torch.library.custom_op("gcnet::fuse", mutates_args=())
def fuse_op(x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    """[relu](x * scale + shift + residual) in one pass, computed in float32."""
    from gcnet.ops.fusion import programs

    x = dense(x)
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    at = layout(x)
    block_c, block_p = _blocks(x, at.channels_last, 1024)
    tiles_c, tiles_p = -(-x.shape[1] // block_c), -(-x.shape[2:].numel() // block_p)
    launch(
        programs.fuse_forward,
        (x.shape[0] * tiles_c * tiles_p,),
        x,
        None if scale is None else scale.contiguous(),
        None if shift is None else shift.contiguous(),
        None if residual is None else in_layout_of(x, residual),
        out,
        at=at,
        tiles_c=tiles_c,
        tiles_p=tiles_p,
        RELU=relu,
        BLOCK_C=block_c,
        BLOCK_P=block_p,
        num_warps=4,
    )
    return out


@fuse_op.register_fake
def _(x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    return torch.empty_like(dense(x))


@torch.library.custom_op("gcnet::fuse_backward", mutates_args=())
def fuse_backward_op(
    grad: Tensor, x: Tensor | None, scale: Tensor | None, out: Tensor | None, want_masked: bool, want_shift: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(grad_x, grad_residual, grad_scale, grad_shift); what is not wanted is empty.

    x and scale together or not at all; out where there was a ReLU; at least one of x and out. Without scale the
    gradient of x is grad_residual.
    """
    from gcnet.ops.fusion import programs

    like = dense(x if x is not None else out)  # type: ignore[arg-type]
    grad_x, masked, _, _ = _gradients(x, out, want_masked, want_shift)
    at = layout(like)
    B, C, P = like.shape[0], like.shape[1], like.shape[2:].numel()
    block_c, block_p = _blocks(like, at.channels_last, 128)
    tiles_c = -(-C // block_c)
    steps, splits = split(B * tiles_c, -(-P // block_p), slots(like, 4)) if B * C else (1, 1)

    def parts(wanted: bool) -> Tensor | None:
        return torch.empty(B, splits, C, dtype=torch.float32, device=like.device) if wanted else None

    scale_parts, shift_parts = parts(scale is not None), parts(want_shift)
    if B * C:
        launch(
            programs.fuse_backward,
            (B * tiles_c, splits),
            in_layout_of(like, grad),
            None if x is None else in_layout_of(like, x),
            None if scale is None else scale.contiguous(),
            None if out is None else in_layout_of(like, out),
            grad_x if x is not None else None,
            masked if want_masked else None,
            scale_parts,
            shift_parts,
            at=at,
            tiles_c=tiles_c,
            steps=steps,
            BLOCK_C=block_c,
            BLOCK_P=block_p,
            num_warps=4,
        )
    scale_sum, shift_sum = (
        grad.new_empty(0, dtype=torch.float32) if part is None else part.sum(1) for part in (scale_parts, shift_parts)
    )
    return grad_x, masked, scale_sum, shift_sum


def _gradients(
    x: Tensor | None, out: Tensor | None, want_masked: bool, want_shift: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The results, not yet filled. The sums over positions are float32."""
    like = dense(x if x is not None else out)  # type: ignore[arg-type]
    vector = like.shape[:2]
    return (
        torch.empty_like(like) if x is not None else like.new_empty(0),
        torch.empty_like(like) if want_masked else like.new_empty(0),
        like.new_empty(vector if x is not None else (0,), dtype=torch.float32),
        like.new_empty(vector if want_shift else (0,), dtype=torch.float32),
    )


@fuse_backward_op.register_fake
def _(
    grad: Tensor, x: Tensor | None, scale: Tensor | None, out: Tensor | None, want_masked: bool, want_shift: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients(x, out, want_masked, want_shift)


def _setup_context(ctx, inputs, output) -> None:
    x, scale, shift, residual, relu = inputs
    ctx.save_for_backward(None if scale is None else x, scale, output if relu else None)
    ctx.dtypes = [None if t is None else t.dtype for t in (scale, shift, residual)]


def _backward(ctx, grad: Tensor):
    x, scale, out = ctx.saved_tensors
    want_x, want_scale, want_shift, want_residual, _ = ctx.needs_input_grad
    if x is None and out is None:
        grad_x = masked = grad
        scale_sum, shift_sum = grad, grad.sum(tuple(range(2, grad.ndim)), dtype=torch.float32) if want_shift else grad
    else:
        want_masked = want_residual or (scale is None and want_x)
        grad_x, masked, scale_sum, shift_sum = fuse_backward_op(grad, x, scale, out, want_masked, want_shift)
        grad_x = masked if scale is None else grad_x
    wanted = (want_scale, want_shift, want_residual)
    others = (
        gradient.to(dtype) if wants else None
        for wants, gradient, dtype in zip(wanted, (scale_sum, shift_sum, masked), ctx.dtypes, strict=True)
    )
    return grad_x if want_x else None, *others, None


fuse_op.register_autograd(_backward, setup_context=_setup_context)
