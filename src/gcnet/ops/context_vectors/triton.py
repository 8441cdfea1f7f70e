"""The context path on the GPU at inference in two launches, as a custom op without a gradient.

B images, K channels of the map, H hidden channels, C channels of the result.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gcnet.ops.attention_pooling import kernels as attention
from gcnet.ops.context_vectors.reference import Branch
from gcnet.ops.triton_runtime import dense, launch, layout, power_of_two

MAX_HIDDEN = 1024  # the hidden vector lives in one program
MOST_SPLITS = 64  # per image: every program of the second launch reads all of them


def serves(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> bool:
    """Whether the kernels serve this call: the map is one for them, each hidden vector fits, no gradient is needed."""
    if not attention.available(x):
        return False
    weights = [weight for branch in branches for weight in branch.weights]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, key, *weights)):
        return False
    return all(weight is None or weight.shape[0] <= MAX_HIDDEN for weight in weights[::6])


def vectors(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """See `gcnet.ops.context_vectors.context_vectors`."""
    return [pooled_transform_op(x, key, *weights, eps, activation) for weights, eps, activation in branches]


@torch.library.custom_op("gcnet::pooled_transform", mutates_args=())
def pooled_transform_op(
    h: Tensor,
    key: Tensor | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    """See `gcnet.ops.pooled_transform`; files of torch.export hold the operator by this signature."""
    from gcnet.ops.context_vectors import programs

    h = dense(h)
    weights = (reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias)
    B, K, C = h.shape[0], h.shape[1], expand_weight.shape[0]
    H = 1 if reduce_weight is None else reduce_weight.shape[0]
    out = h.new_empty(B, C)
    if B == 0:
        return out
    tile = attention.forward_tile(K, h.element_size(), layout(h).channels_last)
    parts = attention.pool_parts(h, key, tile, MOST_SPLITS)
    splits = parts[0].shape[1]
    block_h = max(power_of_two(H), 16)
    # at batch 1 about 64 programs share the rows of `expand`; the tile (BLOCK_C, BLOCK_H) stays small
    block_c = max(min(power_of_two(-(-C * B // 64)), 64, 8192 // block_h), 8)
    launch(
        programs.combine_transform,
        (B, -(-C // block_c)),
        *parts,
        *(None if weight is None else weight.contiguous() for weight in weights),
        out,
        K,
        H,
        C,
        splits,
        eps,
        ACTIVATION=activation or "none",
        SPLITS=power_of_two(splits),
        BLOCK_K=max(min(16384 // block_h, 16384 // power_of_two(splits), 128), 16),  # few steps: each waits for memory
        BLOCK_H=block_h,
        BLOCK_C=block_c,
        num_warps=16,
    )
    return out


@pooled_transform_op.register_fake
def _(
    h: Tensor,
    key: Tensor | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    return h.new_empty(h.shape[0], expand_weight.shape[0])
