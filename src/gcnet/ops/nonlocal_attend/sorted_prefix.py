"""The concatenation form by sorting and prefix sums: O(P log P + P V) time, O(P V) memory, forward and backward.

w . [theta_i, phi_j] = a_i + b_j with scalars a_i and b_j, so ReLU(a_i + b_j) selects, for query i, a prefix of the keys sorted
by falling b: sum_j ReLU(a_i + b_j) g_j = sum over the prefix of (a_i + b_j) g_j. Same algebra as Rust & Hocking (arXiv
2302.11062) for the squared hinge loss. Prefix sums in float32 would lose digits, hence three precautions:

- keys stand in blocks of 64; sums inside a block are one small matrix product, the running sums over blocks are float64;
- every prefix is written around c, the largest b of the block in which it ends:
  (a_i + b_j) = (a_i + c) + (b_j - c), where both terms are small or of one sign, so nothing large cancels;
- c is a mere reference point (the sum does not depend on it) and carries no gradient.

B images, P queries, Q keys, N blocks of K keys, V channels.
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
        out_BPV = ReluSum.apply(a_BP, b_BQ, g.to(wide))
        return (out_BPV * (scale / phi.shape[1])).to(g.dtype)


class ReluSum(torch.autograd.Function):
    """out_i = sum_j ReLU(a_i + b_j) g_j; the backward is the same sum with queries and keys exchanged."""

    @staticmethod
    def forward(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor) -> Tensor:
        return active_sums(a_BP, b_BQ, g_BQV)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_BPV: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        a_BP, b_BQ, g_BQV = ctx.saved_tensors
        need_a, need_b, need_g = ctx.needs_input_grad
        grad_a = grad_b = grad_g = None
        if need_a:
            _, active_g_BPV = active_sums(a_BP, b_BQ, g_BQV)
            grad_a = (grad_BPV * active_g_BPV).sum(2)
        if need_b or need_g:
            grad_g, active_grad_BQV = active_sums(b_BQ, a_BP, grad_BPV)
            grad_b = (g_BQV * active_grad_BQV).sum(2)
        return grad_a, grad_b, grad_g


def active_sums(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor) -> tuple[Tensor, Tensor]:
    """For every i the sums over the keys with a_i + b_j > 0 of (a_i + b_j) g_j and of g_j, each (B, P, V)."""
    B, Q = b_BQ.shape
    falling_BQ, order_BQ = b_BQ.neg().sort(dim=1)
    count_BP = torch.searchsorted(falling_BQ.detach(), a_BP.detach().contiguous())

    pad = -Q % BLOCK
    g_BNKV = F.pad(take_rows(g_BQV, order_BQ), (0, 0, 0, pad)).unflatten(1, (-1, BLOCK))
    b_BNK = F.pad(falling_BQ.neg(), (0, pad)).unflatten(1, (-1, BLOCK))
    c_BN = b_BNK[:, :, 0].detach()

    # inside the blocks
    lower_KK = torch.ones(BLOCK, BLOCK, dtype=g_BQV.dtype, device=g_BQV.device).tril()
    plain_BNKV = lower_KK @ g_BNKV
    tilted_BNKV = lower_KK @ ((b_BNK - c_BN[:, :, None])[:, :, :, None] * g_BNKV)

    # over the blocks: moving the reference point from c_n to c_{n+1} tilts all that came before by c_n - c_{n+1} >= 0
    through_BNV = running_sum(plain_BNKV[:, :, -1])
    step_BN = F.pad(c_BN[:, :-1] - c_BN[:, 1:], (0, 1))
    tilted_through_BNV = running_sum(tilted_BNKV[:, :, -1] + step_BN[:, :, None] * through_BNV)
    plain_BNKV = plain_BNKV + shift_by_one(through_BNV)[:, :, None]
    tilted_BNKV = tilted_BNKV + shift_by_one(tilted_through_BNV)[:, :, None]

    last_BP = (count_BP - 1).clamp_min(0)
    some_BP1 = (count_BP > 0)[:, :, None]
    active_BPV = take_rows(plain_BNKV.flatten(1, 2), last_BP) * some_BP1
    tilt_BPV = take_rows(tilted_BNKV.flatten(1, 2), last_BP) * some_BP1
    above_BP = a_BP + c_BN.gather(1, last_BP // BLOCK)
    return above_BP[:, :, None] * active_BPV + tilt_BPV, active_BPV


def take_rows(table_BQV: Tensor, rows_BP: Tensor) -> Tensor:
    """table[b, rows[b, p]] as (B, P, V); whole rows are copied, which is faster than an element-wise gather."""
    B, Q, V = table_BQV.shape
    start_B1 = torch.arange(B, device=rows_BP.device)[:, None] * Q
    return table_BQV.reshape(B * Q, V).index_select(0, (rows_BP + start_B1).flatten()).view(B, -1, V)


def shift_by_one(x_BNV: Tensor) -> Tensor:
    """Exclusive from inclusive sums: a zero row first, the last row dropped."""
    return F.pad(x_BNV[:, :-1], (0, 0, 1, 0))


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
