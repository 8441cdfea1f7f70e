"""Non-local attention in four forms, none of which builds the P x P matrix."""

from typing import Literal, get_args

import torch
from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.nonlocal_attention.reference import nonlocal_attend_reference as nonlocal_attend_reference
from gcnet.ops.nonlocal_attention.reference import pairwise_weights as pairwise_weights
from gcnet.ops.nonlocal_attention.softmax import softmax_attend
from gcnet.ops.nonlocal_attention.sorted_prefix import concatenation_attend
from gcnet.ops.precision import accumulate_dtype, without_autocast

Pairwise = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
PAIRWISE: tuple[str, ...] = get_args(Pairwise)


def nonlocal_attend(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    pairwise: Pairwise,
    scale: float = 1.0,
    concat_weight: Tensor | None = None,
) -> Tensor:
    """y_i = (1 / C(x)) sum_j f(theta_i, phi_j) g_j, the non-local operation (arXiv 1711.07971, eqs. 1-6).

    | pairwise | f | C(x) | cost |
    |---|---|---|---|
    | gaussian, embedded_gaussian | exp(scale theta_i . phi_j) | sum_j f | O(P Q) time, O(P) memory |
    | dot_product | scale theta_i . phi_j | Q | O(P D V) |
    | concatenation | scale ReLU(w . [theta_i, phi_j]) | Q | O(P log P + P V) |

    Args:
        theta: Queries (for `gaussian` the positions themselves).
        phi: Keys.
        g: Values.
        pairwise: Which f.
        scale: Factor on the logits of the two softmax forms, on f itself in the other two.
        concat_weight: w of the concatenation form, theta's half first; only there.

    Shape:
        theta (B, P, D), phi (B, Q, D), g (B, Q, V), concat_weight (2 D,) -> (B, P, V).

    Dtype:
        That of g; softmax and sums are float32 or wider.

    Raises:
        ValueError: an unknown pairwise, shapes that do not fit, concat_weight missing or not wanted.

    Example:
        >>> theta, phi, g = torch.randn(2, 6, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 3)
        >>> nonlocal_attend(theta, phi, g, pairwise="dot_product").shape
        torch.Size([2, 6, 3])
    """
    _check(theta, phi, g, pairwise, concat_weight)
    if pairwise == "dot_product":
        return _associative_attend(theta, phi, g, scale)
    if pairwise == "concatenation":
        assert concat_weight is not None
        return concatenation_attend(theta, phi, g, concat_weight, scale)
    return softmax_attend(theta, phi, g, scale)


def _associative_attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """The dot product by associativity: (scale / Q) theta_i . (sum_j phi_j g_j^T), O(P D V) time, no P x Q matrix."""
    wide = accumulate_dtype(theta)
    with without_autocast(theta):
        summary_BDV = torch.bmm(phi.to(wide).transpose(1, 2), g.to(wide)) * (scale / phi.shape[1])
        return torch.bmm(theta.to(wide), summary_BDV).to(g.dtype)


def _check(theta: Tensor, phi: Tensor, g: Tensor, pairwise: str, concat_weight: Tensor | None) -> None:
    if pairwise not in PAIRWISE:
        raise GcnetError(f"pairwise={pairwise!r} is unknown; use one of {', '.join(PAIRWISE)}")
    if theta.ndim != 3 or phi.ndim != 3 or g.ndim != 3:
        raise GcnetError(
            f"theta, phi and g must be (B, P, D), (B, Q, D) and (B, Q, V); "
            f"got {tuple(theta.shape)}, {tuple(phi.shape)} and {tuple(g.shape)}"
        )
    if theta.shape[0] != phi.shape[0] or theta.shape[2] != phi.shape[2]:
        raise GcnetError(
            f"phi has shape {tuple(phi.shape)}; expected ({theta.shape[0]}, Q, {theta.shape[2]}) to go with theta"
        )
    if g.shape[:2] != phi.shape[:2]:
        raise GcnetError(
            f"g has shape {tuple(g.shape)}; expected {tuple(phi.shape[:2])} first, one value per key of phi"
        )
    if phi.shape[1] == 0:
        raise GcnetError(f"phi has shape {tuple(phi.shape)}, which holds no key; at least one is needed")
    if pairwise == "concatenation":
        if concat_weight is None or concat_weight.shape != torch.Size([2 * theta.shape[2]]):
            got = None if concat_weight is None else tuple(concat_weight.shape)
            raise GcnetError(f"concat_weight has shape {got}; pairwise='concatenation' needs ({2 * theta.shape[2]},)")
    elif concat_weight is not None:
        raise GcnetError(f"concat_weight is given, but pairwise={pairwise!r} has none; leave it out")
