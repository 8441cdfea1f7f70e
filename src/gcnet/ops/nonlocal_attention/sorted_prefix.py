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

from typing import Any, NamedTuple

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
        relu_sum = relu_sum_for_export if torch.compiler.is_exporting() else ReluSum.apply
        return relu_sum(a_BP, b_BQ, g.to(wide), scale / phi.shape[1]).to(g.dtype)


class ReluSum(torch.autograd.Function):
    """out_i = factor sum_j ReLU(a_i + b_j) g_j; the backward is the same sum with queries and keys exchanged."""

    @staticmethod
    def forward(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor, factor: float) -> Tensor:
        return weighted_sums(prefix_sums(b_BQ, g_BQV, factor), a_BP)

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
            grad_a = dot_sums(prefix_sums(b_BQ, g_BQV, ctx.factor), a_BP, grad_BPV)
        if need_b or need_g:
            over_queries = prefix_sums(a_BP, grad_BPV, ctx.factor)
            grad_g = weighted_sums(over_queries, b_BQ)
            grad_b = dot_sums(over_queries, b_BQ, g_BQV)
        return grad_a, grad_b, grad_g, None


def relu_sum_for_export(a_BP: Tensor, b_BQ: Tensor, g_BQV: Tensor, factor: float) -> Tensor:
    """ReluSum in operations that ONNX has, in the same O((P + Q) log(P + Q) + (P + Q) V) time.

    Prefix sums are plain and float64. ONNX has no searchsorted; its answer is read off one sort of keys and queries
    together, where at the place of a query the keys so far are counted. A key that ties with the query may count or
    not: it adds (a_i + b_j) g_j = 0 (the gradient there is another subgradient).
    """
    P, Q = a_BP.shape[1], b_BQ.shape[1]
    minus_BQ, keys_BQ = b_BQ.neg().sort(dim=1)
    order_BM = torch.cat([minus_BQ, a_BP], dim=1).argsort(dim=1)  # M = Q + P
    count_BM = torch.zeros_like(order_BM).scatter(1, order_BM, (order_BM < Q).to(torch.int64).cumsum(1))
    count_BP = count_BM.narrow(1, Q, P)
    g_BQV = take_rows(g_BQV, keys_BQ).double()
    sums_BQ2V = torch.cat([g_BQV, g_BQV * -minus_BQ[:, :, None]], dim=2).cumsum(1)
    plain_BPV, tilted_BPV = take_rows(sums_BQ2V, (count_BP - 1).clamp_min(0)).chunk(2, dim=2)
    out_BPV = (a_BP[:, :, None] * plain_BPV + tilted_BPV) * (count_BP > 0)[:, :, None]
    return (factor * out_BPV).to(a_BP.dtype)


class PrefixSums(NamedTuple):
    """Sums over the j largest keys, for every j: row 2 (j - 1) of the table holds sum g, the next row sum (b - c) g."""

    table_BRV: Tensor
    minus_BQ: Tensor
    c_BN: Tensor


def prefix_sums(b_BQ: Tensor, g_BQV: Tensor, factor: float) -> PrefixSums:
    """The table of all prefixes of the keys sorted by falling b, times factor."""
    B, Q = b_BQ.shape
    V = g_BQV.shape[2]
    N = (Q + BLOCK - 1) // BLOCK
    minus_BQ, order_BQ = b_BQ.neg().sort(dim=1)

    # Rows that fill the last block are repeats of row 0; they stand behind every real key, so no prefix contains them.
    # Behind the keys of a block there is room for two rows more: the sums over all blocks before.
    pad = N * BLOCK - Q
    b_BNK = F.pad(minus_BQ.neg(), (0, pad)).view(B, N, BLOCK)
    c_BN = b_BNK[:, :, 0].detach()
    rows_BNK = F.pad(F.pad(order_BQ, (0, pad)).view(B, N, BLOCK), (0, 2))
    g_MKV = take_rows(g_BQV, rows_BNK.flatten(1)).view(B * N, BLOCK + 2, V)
    tilt_MK = (b_BNK - c_BN[:, :, None]).view(B * N, BLOCK)

    # Over the blocks: moving the reference point from c_n to c_{n+1} tilts all that came before by c_n - c_{n+1} >= 0.
    total_M2K = F.pad(factor * torch.stack([torch.ones_like(tilt_MK), tilt_MK], dim=1), (0, 2))
    total_BN2V = torch.bmm(total_M2K, g_MKV).view(B, N, 2, V)
    plain_BNV = running_sum(total_BN2V[:, :, 0])
    step_BN = F.pad(c_BN[:, :-1] - c_BN[:, 1:], (0, 1))
    tilted_BNV = running_sum(total_BN2V[:, :, 1] + step_BN[:, :, None] * plain_BNV)
    before_BN2V = F.pad(torch.stack([plain_BNV, tilted_BNV], dim=2)[:, :-1], (0, 0, 0, 0, 1, 0))

    # Inside the blocks: one triangular product adds up g, (b - c) g and what came before.
    before_M2V = before_BN2V.view(B * N, 2, V)
    if torch.is_grad_enabled():  # second derivatives need the rows as they were
        g_MKV = torch.cat([g_MKV[:, :BLOCK], before_M2V], dim=1)
    else:
        g_MKV[:, BLOCK:] = before_M2V
    lower_KK = torch.full((BLOCK, BLOCK), factor, dtype=g_BQV.dtype, device=g_BQV.device).tril()
    inside_MK2K = torch.stack([lower_KK.expand(B * N, -1, -1), lower_KK * tilt_MK[:, None]], dim=2)
    last_22 = torch.eye(2, dtype=g_BQV.dtype, device=g_BQV.device)
    sums_MK2K = torch.cat([inside_MK2K, last_22.expand(B * N, BLOCK, -1, -1)], dim=3)
    table_BRV = torch.bmm(sums_MK2K.flatten(1, 2), g_MKV).view(B, N * 2 * BLOCK, V)
    return PrefixSums(table_BRV, minus_BQ.detach(), c_BN)


def weighted_sums(sums: PrefixSums, a_BP: Tensor) -> Tensor:
    """sum over the keys with a_i + b_j > 0 of (a_i + b_j) g_j, (B, P, V)."""
    last_BP, some_BP = _end_of_prefix(sums, a_BP)
    above_BP = (a_BP + sums.c_BN.gather(1, last_BP // BLOCK)) * some_BP
    if torch.is_grad_enabled() or a_BP.dtype != torch.float32:
        plain_BPV, tilted_BPV = (take_rows(sums.table_BRV, 2 * last_BP + k) for k in (0, 1))
        return above_BP[:, :, None] * plain_BPV + some_BP[:, :, None] * tilted_BPV
    # The same two rows and two weights per query in one pass over memory.
    B, R, V = sums.table_BRV.shape
    start_B1 = torch.arange(B, device=a_BP.device)[:, None] * R
    rows_S2 = torch.stack([2 * last_BP + start_B1, 2 * last_BP + start_B1 + 1], dim=2).view(-1, 2)
    weights_S2 = torch.stack([above_BP, some_BP], dim=2).view(-1, 2)
    table_RV = sums.table_BRV.view(B * R, V)
    return F.embedding_bag(rows_S2, table_RV, mode="sum", per_sample_weights=weights_S2).view(*a_BP.shape, V)


def dot_sums(sums: PrefixSums, a_BP: Tensor, other_BPV: Tensor) -> Tensor:
    """other_i . (sum over the keys with a_i + b_j > 0 of g_j), (B, P)."""
    last_BP, some_BP = _end_of_prefix(sums, a_BP)
    return (other_BPV * take_rows(sums.table_BRV, 2 * last_BP)).sum(2) * some_BP


def _end_of_prefix(sums: PrefixSums, a_BP: Tensor) -> tuple[Tensor, Tensor]:
    """For every query the last key with a_i + b_j > 0 (0 if there is none), and as 0 or 1 whether there is one."""
    count_BP = torch.searchsorted(sums.minus_BQ, a_BP.detach().contiguous())
    return (count_BP - 1).clamp_min(0), (count_BP > 0).to(a_BP.dtype)


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
