"""Softmax attention in chunks of queries, exact: for head sizes that no fused kernel takes as they are.

A chunk of K queries sees all keys at once, so its softmax is the plain one; no more than K x Q logits exist at a time.
The backward pass computes them again from the saved log-sum-exp, as fused kernels do (arXiv 2205.14135).

B images, P queries, Q keys, K queries of a chunk, D channels of queries and keys, V channels of values.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gcnet.ops.precision import without_autocast

CHUNK = 512  # fewer rows make slow matrix products: 256 took 1.1 to 1.2 times as long, 64 twice as long


class SoftmaxInChunks(torch.autograd.Function):
    """(softmax_j(scale theta_i . phi_j) g_j, log sum_j exp(scale theta_i . phi_j)); the second carries no gradient."""

    @staticmethod
    def forward(theta_BPD: Tensor, phi_BQD: Tensor, g_BQV: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        B, P, _ = theta_BPD.shape
        out_BPV = theta_BPD.new_empty(B, P, g_BQV.shape[2])
        logsumexp_BP = theta_BPD.new_empty(B, P)
        with without_autocast(theta_BPD):
            for rows in _chunks(P):
                out_BPV[:, rows], logsumexp_BP[:, rows] = _attend(theta_BPD[:, rows], phi_BQD, g_BQV, scale)
        return out_BPV, logsumexp_BP

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BPV: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        theta_BPD, phi_BQD, g_BQV, out_BPV, logsumexp_BP = ctx.saved_tensors
        need_theta, need_phi, need_g, _ = ctx.needs_input_grad
        grad_theta_BPD = torch.empty_like(theta_BPD) if need_theta else None
        grad_phi_BQD = torch.zeros_like(phi_BQD) if need_phi else None
        grad_g_BQV = torch.zeros_like(g_BQV) if need_g else None
        mean_BP1 = (grad_BPV * out_BPV).sum(dim=2, keepdim=True)  # of the weights' gradients, under the weights
        with without_autocast(theta_BPD):
            for rows in _chunks(theta_BPD.shape[1]):
                theta_BKD, grad_BKV = theta_BPD[:, rows], grad_BPV[:, rows]
                logits_BKQ = torch.bmm(theta_BKD, phi_BQD.transpose(1, 2)).mul_(ctx.scale)
                weights_BKQ = logits_BKQ.sub_(logsumexp_BP[:, rows, None]).exp_()
                if grad_g_BQV is not None:
                    grad_g_BQV.baddbmm_(weights_BKQ.transpose(1, 2), grad_BKV)
                grad_BKQ = torch.bmm(grad_BKV, g_BQV.transpose(1, 2)).sub_(mean_BP1[:, rows])
                grad_BKQ.mul_(weights_BKQ).mul_(ctx.scale)
                if grad_theta_BPD is not None:
                    grad_theta_BPD[:, rows] = torch.bmm(grad_BKQ, phi_BQD)
                if grad_phi_BQD is not None:
                    grad_phi_BQD.baddbmm_(grad_BKQ.transpose(1, 2), theta_BKD)
                del logits_BKQ, weights_BKQ, grad_BKQ  # before the next chunk's are made
        return grad_theta_BPD, grad_phi_BQD, grad_g_BQV, None


def _attend(theta_BKD: Tensor, phi_BQD: Tensor, g_BQV: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """One chunk; a function, so that its logits are freed before those of the next one are made."""
    logits_BKQ = torch.bmm(theta_BKD, phi_BQD.transpose(1, 2)).mul_(scale)
    most_BK1 = logits_BKQ.amax(dim=2, keepdim=True)
    weights_BKQ = logits_BKQ.sub_(most_BK1).exp_()
    sum_BK1 = weights_BKQ.sum(dim=2, keepdim=True)
    return torch.bmm(weights_BKQ, g_BQV).div_(sum_BK1), (most_BK1 + sum_BK1.log())[:, :, 0]


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
