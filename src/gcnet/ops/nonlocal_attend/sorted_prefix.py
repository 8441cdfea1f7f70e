"""The concatenation form by sorting and prefix sums: O(P log P + P V) time, O(P V) memory, forward and backward.

w . [theta_i, phi_j] = a_i + b_j with scalars a_i and b_j, so ReLU(a_i + b_j) selects, for query i, a prefix of the keys
sorted by falling b: sum_j ReLU(a_i + b_j) g_j = sum over the prefix of (a_i + b_j) g_j. Same algebra as Rust & Hocking
(arXiv 2302.11062) for the squared hinge loss. Prefix sums in float32 would lose digits, hence three precautions:

- keys stand in blocks of 64; sums inside a block are one small matrix product, running sums over blocks are float64;
- every prefix is written around c, the largest b of the block in which it ends:
  (a_i + b_j) = (a_i + c) + (b_j - c), where both terms are small or of one sign, so nothing large cancels;
- c is a mere reference point (the sum does not depend on it) and carries no gradient.

B images, P queries, Q keys, N blocks of K keys, M = B N, V channels; a table of R = 2 N K rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.ops.precision import accumulate_dtype, without_autocast

BLOCK = 64
_NO_FLOAT64 = ("mps",)


def concatenation_attend(theta: Tensor, phi: Tensor, g: Tensor, concat_weight: Tensor, scale: float) -> Tensor:
    """(scale / Q) sum_j ReLU(w . [theta_i, phi_j]) g_j (arXiv 1711.07971, eq. 6)."""
    wide = accumulate_dtype(theta)
    with without_autocast(theta):
        w_theta_D, w_phi_D = concat_weight.to(wide).chunk(2)
        a_BP = theta.to(wide) @ w_theta_D
        b_BQ = phi.to(wide) @ w_phi_D
        return ReluSum.apply(a_BP, b_BQ, g.to(wide), scale / phi.shape[1]).to(g.dtype)


class ReluSum(torch.autograd.Function):
    """out_i = factor sum_j ReLU(a_i + b_j) g_j; the backward is the same sum with queries and keys exchanged."""

    @staticmethod
    def forward(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor, factor: float) -> Tensor:
        return active_sums(a_BP, b_BQ, g_BQV, factor)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
        *tensors, ctx.factor = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad_BPV: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        a_BP, b_BQ, g_BQV = ctx.saved_tensors
        need_a, need_b, need_g, _ = ctx.needs_input_grad
        grad_a = grad_b = grad_g = None
        if need_a:
            _, active_g_BPV, some_BP = active_sums(a_BP, b_BQ, g_BQV, ctx.factor)
            grad_a = (grad_BPV * active_g_BPV).sum(2) * some_BP
        if need_b or need_g:
            grad_g, active_grad_BQV, some_BQ = active_sums(b_BQ, a_BP, grad_BPV, ctx.factor)
            grad_b = (g_BQV * active_grad_BQV).sum(2) * some_BQ
        return grad_a, grad_b, grad_g, None


def active_sums(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor, factor: float) -> tuple[Tensor, Tensor, Tensor]:
    """For every i the sums over the keys with a_i + b_j > 0 of factor (a_i + b_j) g_j and of factor g_j.

    Returns both sums (B, P, V) and, as 0 or 1 (B, P), whether any key was active: where none was, the second is void.
    """
    B, Q = b_BQ.shape
    V = g_BQV.shape[2]
    N = (Q + BLOCK - 1) // BLOCK
    falling_BQ, order_BQ = b_BQ.neg().sort(dim=1)
    count_BP = torch.searchsorted(falling_BQ.detach(), a_BP.detach().contiguous())

    # Rows that fill the last block are repeats of row 0; they stand behind every real key, so no prefix contains them.
    pad = N * BLOCK - Q
    g_MKV = take_rows(g_BQV, F.pad(order_BQ, (0, pad))).view(B * N, BLOCK, V)
    b_BNK = F.pad(falling_BQ.neg(), (0, pad)).view(B, N, BLOCK)
    c_BN = b_BNK[:, :, 0].detach()

    # Inside the blocks: prefix sums of g and of (b - c) g, both by one triangular product.
    lower_KK = torch.full((BLOCK, BLOCK), factor, dtype=g_BQV.dtype, device=g_BQV.device).tril()
    tilt_MK = (b_BNK - c_BN[:, :, None]).view(B * N, BLOCK)
    both_M2KK = torch.stack([lower_KK.expand(B * N, -1, -1), lower_KK * tilt_MK[:, None]], dim=1).flatten(1, 2)
    sums_BN2KV = torch.bmm(both_M2KK, g_MKV).view(B, N, 2, BLOCK, V)

    # Over the blocks: moving the reference point from c_n to c_{n+1} tilts all that came before by c_n - c_{n+1} >= 0.
    total_BN2V = sums_BN2KV[:, :, :, -1]
    plain_BNV = running_sum(total_BN2V[:, :, 0])
    step_BN = F.pad(c_BN[:, :-1] - c_BN[:, 1:], (0, 1))
    tilted_BNV = running_sum(total_BN2V[:, :, 1] + step_BN[:, :, None] * plain_BNV)
    before_BN2V = F.pad(torch.stack([plain_BNV, tilted_BNV], dim=2)[:, :-1], (0, 0, 0, 0, 1, 0))
    table_BRV = sums_BN2KV.add_(before_BN2V[:, :, :, None]).view(B, N * 2 * BLOCK, V)

    # The prefix of query i ends with key count_i - 1. With count_i = 0 the first row is read: its tilted sum is 0 by
    # itself (c is its own b), and its plain sum counts for nothing.
    last_BP = (count_BP - 1).clamp_min(0)
    some_BP = (count_BP > 0).to(g_BQV.dtype)
    block_BP = last_BP // BLOCK
    row_BP = last_BP + block_BP * BLOCK
    active_BPV = take_rows(table_BRV, row_BP)
    above_BP = (a_BP + c_BN.gather(1, block_BP)) * some_BP
    weighted_BPV = torch.addcmul(take_rows(table_BRV, row_BP + BLOCK), above_BP[:, :, None], active_BPV)
    if torch.is_grad_enabled():  # second derivatives: the first row is 0 in value only, since c carries no gradient
        weighted_BPV = weighted_BPV * some_BP[:, :, None]
    return weighted_BPV, active_BPV, some_BP


def take_rows(table_BQV: Tensor, rows_BP: Tensor) -> Tensor:
    """table[b, rows[b, p]] as (B, P, V); whole rows are copied, which is faster than an element-wise gather."""
    B, Q, V = table_BQV.shape
    start_B1 = torch.arange(B, device=rows_BP.device)[:, None] * Q
    return table_BQV.reshape(B * Q, V).index_select(0, (rows_BP + start_B1).flatten()).view(*rows_BP.shape, V)


def running_sum(x_BNV: Tensor) -> Tensor:
    """Inclusive sums along dim 1, accumulated in float64, or compensated where the device has none."""
    if x_BNV.device.type in _NO_FLOAT64:
        return compensated_running_sum(x_BNV)
    return x_BNV.cumsum(1, dtype=torch.float64).to(x_BNV.dtype)


def compensated_running_sum(x_BNV: Tensor) -> Tensor:
    """Inclusive sums along dim 1 as unevaluated pairs high + low (Knuth's two-sum), by doubling steps."""
    high, low = x_BNV, torch.zeros_like(x_BNV)
    step = 1
    while step < x_BNV.shape[1]:
        other_high = F.pad(high[:, :-step], (0, 0, step, 0))
        other_low = F.pad(low[:, :-step], (0, 0, step, 0))
        total = high + other_high
        rest = total - high
        error = (high - (total - rest)) + (other_high - rest)
        high, low = total, low + other_low + error
        step *= 2
    return high + low
