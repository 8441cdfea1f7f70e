"""Which backend computes the vectors of a context block."""

from collections.abc import Callable, Sequence

from torch import Tensor

from gcnet.ops.context_vectors import cpu, general, triton
from gcnet.ops.context_vectors.reference import Branch

BACKENDS: dict[str, Callable[[Tensor, Tensor | None, Sequence[Branch]], list[Tensor]]] = {
    "general": general.vectors,
    "cpu": cpu.vectors,
    "triton": triton.vectors,
}


def context_vectors(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """Context modelling and transform of a context block: what it adds to its map, or scales it with.

    One vector per branch, `branch(sum_j alpha_j x_j)` with `alpha = softmax_j(key . x_j)` (arXiv 1904.11492, eq. 5,
    without the fusion). There is no bias of the key: it cancels. Shapes are not checked: see `pooled_transform`.

    Args:
        x: Feature map, one to three spatial dimensions; in a folded block the narrow one.
        key: The key vector w_k; None for average pooling (alpha = 1 / P).
        branches: The transforms.

    Shape:
        x (B, K, *spatial), key (K,) -> (B, C) for each branch.

    Dtype:
        That of x; everything is computed in float32 or wider, also under autocast.
    """
    return BACKENDS[choose(x, key, branches)](x, key, branches)


def choose(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> str:
    """The name of the backend that serves this call."""
    if cpu.serves(x, key, branches):
        return "cpu"
    return "triton" if triton.serves(x, key, branches) else "general"
