"""The context path at inference on the CPU, in as few calls as possible (docs/decisions/0011).

Inside a network the caches of a CPU hold the map that was just convolved, not the code of the next small operation:
each call there takes 20 to 100 microseconds, more than the arithmetic on the vectors of a context block. Here are the
same sums with half of the calls of the general path (benchmarks/block_alone.py, benchmarks/context_tax.py).

B images, C channels, P positions, T parts of N positions. One image is a vector (C,) up to the end, several are (B, C).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gcnet.ops.context_vectors.reference import ACTIVATIONS, Branch

_DTYPES = (torch.float32, torch.float64)


def serves(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> bool:
    """Whether the path serves this call: on the CPU, no gradient, one dtype that needs no wider sums, nothing traced.

    Exported graphs hold the general path (torch.export passes tensors of another type), and where a trace has a size
    that is no plain number, one image must not become a constant of the graph.
    """
    dtype = x.dtype
    if (
        torch.is_grad_enabled()
        or type(x) is not Tensor
        or not x.is_cpu
        or dtype not in _DTYPES
        or torch.is_autocast_enabled("cpu")
        or type(x.shape[0]) is not int
    ):
        return False
    for weights, _, _ in branches:
        for weight in weights:
            if weight is not None and weight.dtype is not dtype:
                return False
    return key is None or key.dtype is dtype


def vectors(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """See `gcnet.ops.context_vectors.context_vectors`."""
    pooled = pool(x, key)
    found = [transform(pooled, branch) for branch in branches]
    return [t.unsqueeze(0) for t in found] if pooled.ndim == 1 else found


def pool(x: Tensor, key: Tensor | None) -> Tensor:
    """Attention pooling with the key vector (C,), average pooling without; as `attention_pool` and `average_pool`."""
    if x.shape[0] == 1:
        x_CP = x.reshape(x.shape[1], -1)
        P = x_CP.shape[1]  # a mean as a product, too: the code of the products is in the cache for the transform
        parts = _parts(x_CP)
        if parts > 1:
            return _pool_in_parts(x_CP.t().unflatten(0, (parts, -1)), key)
        alpha_P = x.new_full((P,), 1 / P) if key is None else torch.mv(x_CP.t(), key).softmax(0)
        return torch.mv(x_CP, alpha_P)
    x_BCP = x.flatten(2)
    if key is None:
        return x_BCP.mean(2)
    alpha_B1P = torch.bmm(key.expand(x.shape[0], 1, -1), x_BCP).softmax(2)
    return torch.bmm(alpha_B1P, x_BCP.transpose(1, 2)).squeeze(1)


def _parts(x_CP: Tensor) -> int:
    """In how many parts a map is pooled whose channels lie next to each other; 1: as a whole.

    The product of such a matrix and a vector runs on one thread, a batch of them on all. That takes two calls more,
    which pays from maps of about a megabyte on: half of the time (benchmarks/block_alone.py).
    """
    C, P = x_CP.shape
    return math.gcd(P, 16) if x_CP.stride(0) == 1 and C > 1 and C * P >= 2**18 else 1


def _pool_in_parts(x_TNC: Tensor, key: Tensor | None) -> Tensor:
    """T parts of N positions each -> (C,)."""
    T, N, C = x_TNC.shape
    if key is None:
        alpha_T1N = x_TNC.new_full((T, 1, N), 1 / (T * N))
    else:  # the vector on the left: the other order takes twice the time and more
        logits_T1N = torch.bmm(key.expand(T, 1, C), x_TNC.transpose(1, 2))
        alpha_T1N = logits_T1N.view(-1).softmax(0).view(T, 1, N)
    return torch.bmm(alpha_T1N, x_TNC).sum(0).view(C)


def transform(pooled: Tensor, branch: Branch) -> Tensor:
    """Linear -> [LayerNorm] -> [activation] -> linear."""
    (reduce, reduce_bias, norm, norm_bias, expand, expand_bias), eps, activation = branch
    assert expand is not None
    if reduce is not None:
        pooled = _linear(pooled, reduce, reduce_bias)
        if norm is not None:
            pooled = torch.layer_norm(pooled, norm.shape, norm, norm_bias, eps)
        if activation == "relu":
            pooled = pooled.relu_()
        elif activation is not None:
            pooled = ACTIVATIONS[activation](pooled)
    return _linear(pooled, expand, expand_bias)


def _linear(vector: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if vector.ndim == 2:
        return F.linear(vector, weight, bias)
    return torch.mv(weight, vector) if bias is None else torch.addmv(bias, weight, vector)
