"""The context path of a folded block: pool a map to one vector and transform it, without touching anything wider."""

from torch import Tensor

from gcnet.errors import GcnetError
from gcnet.ops.attention_pool import attention_pool
from gcnet.ops.average_pool import average_pool
from gcnet.ops.checks import check_map
from gcnet.ops.pooled_transform import kernels
from gcnet.ops.pooled_transform.reference import ACTIVATIONS, transform
from gcnet.ops.pooled_transform.reference import pooled_transform_reference as pooled_transform_reference
from gcnet.ops.precision import accumulate_dtype, without_autocast


def pooled_transform(
    h: Tensor,
    key: Tensor | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    *,
    eps: float = 1e-5,
    activation: str | None = "relu",
) -> Tensor:
    """Context modelling and transform of a folded block in one op (arXiv 1904.11492, eq. 5, without the fusion).

    `t = expand(activation(LayerNorm(reduce(sum_j alpha_j h_j))))` with `alpha = softmax_j(key . h_j)`. There is no
    bias of the key: it cancels.

    Args:
        h: Feature map, one to three spatial dimensions; in a folded block the narrow one.
        key: The key vector w_k; None for average pooling (alpha = 1 / P).
        reduce_weight: First linear layer; None for a transform of one layer, `expand` alone.
        reduce_bias: Its bias, or None.
        norm_weight: Factors of the LayerNorm over the H hidden channels; None for no LayerNorm.
        norm_bias: Its summands, or None.
        expand_weight: Last linear layer.
        expand_bias: Its bias, or None.
        eps: Of the LayerNorm.
        activation: "relu", "silu", "gelu", "hard_swish" or None; it comes before `expand` and, like the norm, only
            exists after a first layer.

    Shape:
        h (B, K, *spatial), key (K,), reduce_weight (H, K), expand_weight (C, H), or (C, K) without a first layer
        -> t (B, C).

    Dtype:
        That of h; everything is computed in float32 or wider, also under autocast.

    Raises:
        ValueError: h is no map with positions, a shape does not fit, a bias or norm without its layer, an unknown
            activation.

    Example:
        >>> import torch
        >>> h, key, reduce, expand = torch.randn(2, 8, 4, 4), torch.randn(8), torch.randn(3, 8), torch.randn(32, 3)
        >>> pooled_transform(h, key, reduce, None, torch.ones(3), torch.zeros(3), expand, torch.zeros(32)).shape
        torch.Size([2, 32])
    """
    check_map(h, name="h")
    _check(h, key, reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias, activation)
    weights = (reduce_weight, reduce_bias, norm_weight, norm_bias, expand_weight, expand_bias)
    if kernels.available(h, key, *weights):
        return kernels.pooled_transform_op(h, key, *weights, eps, activation)
    pooled_BK = average_pool(h) if key is None else attention_pool(h, key)
    with without_autocast(h):
        return transform(pooled_BK.to(accumulate_dtype(h)), weights, eps, activation).to(h.dtype)


def _check(
    h: Tensor,
    key: Tensor | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    activation: str | None,
) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        raise GcnetError(f"activation={activation!r} is unknown; use one of {', '.join(ACTIVATIONS)} or None")
    K, H = h.shape[1], None if reduce_weight is None else reduce_weight.shape[0]
    if reduce_weight is None:
        for name, value in (("reduce_bias", reduce_bias), ("norm_weight", norm_weight), ("norm_bias", norm_bias)):
            if value is not None:
                raise GcnetError(f"{name} is given, but reduce_weight is None; leave both out or give both")
    elif norm_weight is None and norm_bias is not None:
        raise GcnetError("norm_bias is given, but norm_weight is None; give ones if the norm has no factors")
    wanted = {
        "key": (key, (K,)),
        "reduce_weight": (reduce_weight, (H, K)),
        "reduce_bias": (reduce_bias, (H,)),
        "norm_weight": (norm_weight, (H,)),
        "norm_bias": (norm_bias, (H,)),
        "expand_weight": (expand_weight, (expand_weight.shape[:1] or (1,)) + (K if H is None else H,)),
        "expand_bias": (expand_bias, expand_weight.shape[:1]),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != tuple(shape):
            raise GcnetError(f"{name} has shape {tuple(tensor.shape)}; expected {tuple(shape)} for h {tuple(h.shape)}")
