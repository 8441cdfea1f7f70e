"""The figures of one call of a block for each of its images. Legend as in `attention.py`.

Memory does not depend on the number of images, and for more than 1024 queries not on the P x Q matrix either.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcnet.analysis.readers.attention import Call, Maps
from gcnet.ops.distances import (
    EXACT_UP_TO,
    average_cosine_distance,
    average_jensen_shannon,
    entropy,
    sampled_jensen_shannon,
    unit_vectors,
)
from gcnet.ops.distances.cosine import cosine_distance_of_mean, precise

# Name and range of values. The paper's four first, then what goes beyond it.
FIGURES: dict[str, tuple[float, float]] = {
    "input_cos": (0, 0.5),
    "output_cos": (0, 0.5),
    "att_cos": (0, 0.5),
    "att_jsd": (0, math.log(2)),
    "output_cos_no_bias": (0, 0.5),
    "att_spread": (0, 1),
    "entropy": (0, math.inf),
    "effective_positions": (0, math.inf),
    "information": (0, math.inf),
    "unary_share": (0, 1),
    "query_within": (0, math.inf),
}
PER_HEAD = ("att_cos", "att_jsd", "att_spread", "entropy", "effective_positions", "information", "unary_share")
SCALES = (0.25, 0.5, 2.0, 4.0)  # factors on the logits at which the distances are estimated again
SCALED = ("att_cos", "att_jsd", "entropy")
_SWEEP = 32  # queries drawn for these estimates
_PAIRS = 1024  # drawn for the divergence of more than EXACT_UP_TO maps
_AT_ONCE = 1 << 22  # numbers of float64 in a block of maps: 32 MB


def scaled(name: str, factor: float) -> str:
    """The name of a figure with the logits multiplied by a factor."""
    return f"{name}@{factor:g}"


def figures_of(call: Call, generator: torch.Generator) -> dict[str, Tensor]:
    """What figures its form has, of every image: (B, H) per head, (B,) of the others; `query_mean` is (B, H * D)."""
    attention = call.attention
    B, W, H, _, _ = attention.query.shape
    found = {
        "input_cos": average_cosine_distance(call.input).mean(dim=1),
        "output_cos": average_cosine_distance(call.output).mean(dim=1),
        **_queries(attention.query),
    }
    if call.constant is not None:
        without = precise(call.output) - precise(call.constant)
        found["output_cos_no_bias"] = average_cosine_distance(without).mean(dim=1)
    sets = max(1, _AT_ONCE // (W * H * attention.query.shape[3] * attention.key.shape[3]))
    parts = [_map_figures(attention.maps(slice(b, b + sets)), generator) for b in range(0, B, sets)]
    for name in parts[0]:
        found[name] = torch.cat([part[name] for part in parts]).reshape(B, W, H).mean(dim=1)
    for name, count in (
        ("positions", call.input.shape[1] * call.input.shape[2]),
        ("queries", W * attention.query.shape[3]),
        ("keys", attention.key.shape[3]),
    ):
        found[name] = torch.full_like(found["input_cos"], count)
    return found


def _queries(query_BWHPD: Tensor) -> dict[str, Tensor]:
    """Mean query of each image, and how far its queries are from it: mean_i |q_i - mean q|^2, summed over heads."""
    query = precise(query_BWHPD)
    mean = query.mean(dim=(1, 3), keepdim=True)
    within = (query - mean).square().sum(dim=4).mean(dim=(1, 3)).sum(dim=1)
    return {"query_within": within, "query_mean": mean.flatten(1)}


def _map_figures(maps: Maps, generator: torch.Generator) -> dict[str, Tensor]:
    """(N,) each."""
    N, P, Q = maps.sizes
    sets = max(1, _AT_ONCE // (P * Q)) if P <= EXACT_UP_TO else 1
    parts = [_figures(maps.some(slice(n, n + sets)), generator) for n in range(0, N, sets)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _figures(maps: Maps, generator: torch.Generator) -> dict[str, Tensor]:
    N, P, Q = maps.sizes
    sums = _Sums(maps)
    step = P if P <= EXACT_UP_TO else max(1, _AT_ONCE // (N * Q))
    weights_NnQ = torch.empty(0)
    for start in range(0, P, step):
        rows = slice(start, start + step)
        logits_NnQ = maps.logits(rows)
        weights_NnQ = maps.weights(rows, logits=logits_NnQ)
        sums.add(logits_NnQ, weights_NnQ)
    found = sums.figures(P)
    if maps.form != "softmax":
        return found
    if P <= EXACT_UP_TO:
        divergence = average_jensen_shannon(weights_NnQ)
    else:
        divergence = sampled_jensen_shannon(maps.weights, P, pairs=_PAIRS, generator=generator)
    found |= {"att_jsd": divergence.value, "att_jsd_variance": divergence.error.square()}
    return found | _sweep(maps, generator)


def _sweep(maps: Maps, generator: torch.Generator) -> dict[str, Tensor]:
    """Distances at other scales of the logits, from queries drawn without replacement: unbiased."""
    _, P, _ = maps.sizes
    rows = torch.randperm(P, generator=generator)[:_SWEEP]
    m = len(rows)
    pairs = (P - 1) / P * m / (m - 1) if m > 1 else 0.0  # pairs i = j are rarer among all than among the drawn
    logits_NnQ = maps.logits(rows)
    found = {}
    for factor in SCALES:
        weights_NnQ = maps.weights(rows, logits=logits_NnQ, factor=factor)
        found[scaled("att_cos", factor)] = pairs * average_cosine_distance(weights_NnQ)
        found[scaled("att_jsd", factor)] = pairs * average_jensen_shannon(weights_NnQ).value
        found[scaled("entropy", factor)] = entropy(weights_NnQ).mean(dim=1)
    return found


class _Sums:
    """Sums over the queries of what the averages need."""

    def __init__(self, maps: Maps) -> None:
        N, _, Q = maps.sizes
        self.distributions = maps.form == "softmax"
        self.split = self.distributions and maps.unary_NQ is None
        self.unit_NQ, self.weight_NQ, self.logit_NQ = (maps.key_NQD.new_zeros(N, Q) for _ in range(3))
        self.energy_N, self.logit_energy_N, self.entropy_N, self.effective_N = (
            maps.key_NQD.new_zeros(N) for _ in range(4)
        )

    def add(self, logits_NnQ: Tensor, weights_NnQ: Tensor) -> None:
        self.unit_NQ += unit_vectors(weights_NnQ).sum(dim=1)
        self.weight_NQ += weights_NnQ.sum(dim=1)
        self.energy_N += weights_NnQ.square().sum(dim=(1, 2))
        if self.distributions:
            entropy_Nn = entropy(weights_NnQ)
            self.entropy_N += entropy_Nn.sum(dim=1)
            self.effective_N += entropy_Nn.exp().sum(dim=1)
        if self.split:
            centred_NnQ = logits_NnQ - logits_NnQ.mean(dim=2, keepdim=True)
            self.logit_NQ += centred_NnQ.sum(dim=1)
            self.logit_energy_N += centred_NnQ.square().sum(dim=(1, 2))

    def figures(self, P: int) -> dict[str, Tensor]:
        mean_NQ = self.weight_NQ / P
        found = {
            "att_cos": cosine_distance_of_mean(self.unit_NQ / P),
            "att_spread": _share(self.energy_N - P * mean_NQ.square().sum(dim=1), self.energy_N),
        }
        if self.distributions:
            found["entropy"] = self.entropy_N / P
            found["effective_positions"] = self.effective_N / P
            found["information"] = (entropy(mean_NQ) - self.entropy_N / P).clamp_min(0)
        if self.split:
            unary_N = P * (self.logit_NQ / P).square().sum(dim=1)
            found["unary_share"] = 1 - _share(self.logit_energy_N - unary_N, self.logit_energy_N)
        return found


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole between 0 and 1; 0 where the whole is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, torch.ones_like(whole)), 0.0).clamp(0, 1)
