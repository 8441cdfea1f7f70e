"""The definitions, by loops over all ordered pairs in float64. P vectors or maps, C channels, Q keys."""

import math

import torch
from torch import Tensor


def average_cosine_distance_reference(v_PC: Tensor) -> float:
    """mean_ij (1 - cos(v_i, v_j)) / 2 over all ordered pairs, i = j among them; a zero vector has cosine 0."""
    rows = v_PC.double().tolist()
    total = 0.0
    for a in rows:
        for b in rows:
            norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
            cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0
            total += (1 - cosine) / 2
    return total / len(rows) ** 2


def average_jensen_shannon_reference(maps_PQ: Tensor) -> float:
    """mean_ij of KL(p_i | m) / 2 + KL(p_j | m) / 2 with m = (p_i + p_j) / 2, natural logarithm, all ordered pairs."""
    rows = maps_PQ.double().tolist()
    total = 0.0
    for p in rows:
        for q in rows:
            middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            total += sum(_divergence(one, middle) / 2 for one in (p, q))
    return total / len(rows) ** 2


def _divergence(p: list[float], m: list[float]) -> float:
    return math.fsum(x * math.log(x / y) for x, y in zip(p, m, strict=True) if x > 0)


def entropy_reference(p_Q: Tensor) -> float:
    """-sum_k p_k ln p_k with 0 ln 0 = 0."""
    return -math.fsum(x * math.log(x) for x in p_Q.to(torch.float64).tolist() if x > 0)
