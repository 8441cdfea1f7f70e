"""The context path for every call: gradients, any dtype, autocast, traced and exported graphs."""

from collections.abc import Sequence

from torch import Tensor

from gcnet.ops.attention_pooling import attention_pool
from gcnet.ops.average_pooling import average_pool
from gcnet.ops.context_vectors.reference import Branch, transform
from gcnet.ops.precision import accumulate_dtype, without_autocast


def vectors(x: Tensor, key: Tensor | None, branches: Sequence[Branch]) -> list[Tensor]:
    """See `gcnet.ops.context_vectors.context_vectors`."""
    pooled_BC = average_pool(x) if key is None else attention_pool(x, key)
    with without_autocast(x):
        wide_BC = pooled_BC.to(accumulate_dtype(x))
        return [transform(wide_BC, branch).to(x.dtype) for branch in branches]
