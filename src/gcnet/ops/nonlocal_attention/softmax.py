"""The Gaussian forms: softmax attention in O(P) memory, on the kernel that serves this device and these head sizes.

B images, P queries, Q keys, D channels of queries and keys, V channels of values.

| device | head sizes | route |
|---|---|---|
| CPU | D = V, or half precision | the fused kernel, which takes any size if both are equal (else padded) |
| CPU | D != V (the Gaussian form) | our chunks of queries, which spend no work on padding |
| CUDA | up to 256 | PyTorch's choice, usually flash attention |
| CUDA | above 256 | the memory-efficient kernel: flash attention refuses, the math kernel builds the P x Q matrix |
| CUDA | float64, or what that kernel refuses | our chunks of queries |

benchmarks/nonlocal_softmax.py compares both routes on the CPU. Compiled and exported graphs always hold the one call
that the compiler knows.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_efficient_attention
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gcnet.ops.nonlocal_attention.query_chunks import SoftmaxInChunks
from gcnet.ops.precision import accumulate_dtype

Route = Literal["fused", "efficient", "chunks"]
FLASH_LIMIT = 256  # the largest head size of flash attention on CUDA
ALIGNMENT = 8  # what the memory-efficient kernel asks of head sizes, at most


def softmax_attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """softmax_j(scale * theta_i . phi_j) g_j without the P x Q matrix."""
    D, V = theta.shape[2], g.shape[2]
    chosen = route(theta, phi, g)
    if chosen == "chunks":
        wide = accumulate_dtype(theta)
        out_BPV, _ = SoftmaxInChunks.apply(theta.to(wide), phi.to(wide), g.to(wide), scale)
        return out_BPV.to(g.dtype)
    if chosen == "efficient":
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION]):
            out_BPV = _attend(theta, phi, g, scale, padded(D), padded(V))
    else:
        out_BPV = _attend(theta, phi, g, scale, max(D, V), max(D, V))
    return out_BPV[:, :, :V]


def route(theta: Tensor, phi: Tensor, g: Tensor) -> Route:
    """How softmax attention is computed for these tensors: see the table on top of this file."""
    D, V = theta.shape[2], g.shape[2]
    if torch.compiler.is_compiling():
        return "fused"
    if theta.device.type == "cuda":
        if theta.dtype != torch.float64 and max(D, V) <= FLASH_LIMIT:
            return "fused"
        return "efficient" if _efficient_kernel_takes(theta, phi, g) else "chunks"
    if theta.device.type in ("cpu", "meta") and D != V and theta.dtype in (torch.float32, torch.float64):
        autocast = theta.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        return "fused" if autocast else "chunks"
    return "fused"


def padded(size: int) -> int:
    """The head size that the memory-efficient kernel takes.

    Example:
        >>> padded(512), padded(513)
        (512, 520)
    """
    return -(-size // ALIGNMENT) * ALIGNMENT


def _efficient_kernel_takes(theta: Tensor, phi: Tensor, g: Tensor) -> bool:
    """Asked with tensors that have the shapes of the padded ones, but one row of memory."""
    query, key, value = (
        t.new_empty(1, 1, 1, padded(t.shape[2])).expand(t.shape[0], 1, t.shape[1], -1) for t in (theta, phi, g)
    )
    return can_use_efficient_attention(SDPAParams(query, key, value, None, 0.0, False, False))


def _attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float, D: int, V: int) -> Tensor:
    """The fused kernel on heads of D and V channels: zeros on theta and phi leave the logits alone, on g they add
    columns that the caller cuts off."""
    theta_B1PD, phi_B1QD, g_B1QV = (
        F.pad(t, (0, size - t.shape[2]))[:, None] if size > t.shape[2] else t[:, None]
        for t, size in ((theta, D), (phi, D), (g, V))
    )
    return F.scaled_dot_product_attention(theta_B1PD, phi_B1QD, g_B1QV, scale=scale)[:, 0]
