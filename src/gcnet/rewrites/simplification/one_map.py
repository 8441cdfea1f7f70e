"""What a non-local block becomes once its query is one vector per image: one map of weights, one vector added.

B images, C channels, D channels of query and key, V channels of the values, P positions, Q keys.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.blocks.context import Bottleneck, ContextBlock, over_map
from gcnet.blocks.nonlocal_block import halve, positions
from gcnet.blocks.options import check_choice
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map
from gcnet.ops.precision import accumulate_dtype, without_autocast

Form = Literal["shared", "image"]
PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation", "disentangled")


class OneMapContext(nn.Module):
    """z_i = x_i + W_z (sum_j beta_j (W_v x_j + b_v)) + b_z with one map beta for all i (docs/decisions/0010).

    | pairwise | beta_j | query "shared" | query "image", of m = mean_i x_i |
    |---|---|---|---|
    | gaussian, embedded_gaussian | softmax_j(l_j) | l_j = key(x_j) | l_j = s m . x_j, or query(m) . key(x_j) |
    | dot_product | l_j / Q | l_j = key(x_j) | l_j = query(m) . key(x_j) |
    | concatenation | ReLU(l_j) / Q | l_j = key(x_j) | l_j = key(x_j) + query(m) |
    | disentangled | softmax_j(l_j) + 1 / Q | l_j = key(x_j) | |

    `simplify` makes it where `ContextBlock` has no such map. The path is O(P C): with a query of the image the key's
    layer is applied to the query, not to the positions.

    Args:
        channels: C.
        hidden: V.
        pairwise: The form of the block it stands for.
        query: "shared" (the same for all images) or "image" (that of the image's mean position).
        width: D, for the query "image" of embedded_gaussian and dot_product.
        scale: s, for the query "image" of gaussian; elsewhere it is part of the weights.
        subsample: Keys and values are those of the map after a 2x2 max-pool (`NonLocal(subsample="before")`).
        device: Where the parameters live.
        dtype: Floating-point type of the parameters.

    Shape:
        x (B, C, *spatial) -> (B, C, *spatial), one to three spatial dimensions; dtype of x, sums are float32 or wider.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        pairwise: str,
        query: Form = "shared",
        width: int = 1,
        scale: float = 1.0,
        subsample: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_choice("pairwise", pairwise, PAIRWISE)
        check_choice("query", query, get_args(Form))
        if pairwise == "disentangled" and query == "image":
            raise GcnetError(
                "query='image' is not allowed for pairwise='disentangled', whose mean query is always zero"
            )
        self.channels, self.pairwise, self.form = channels, pairwise, query
        self.scale, self.subsample = scale, subsample

        def layer(outputs: int, bias: bool = True) -> nn.Linear:
            return nn.Linear(channels, outputs, bias=bias, device=device, dtype=dtype)

        self.query: nn.Linear | None = None
        self.key: nn.Linear | None = None
        if query == "shared":
            self.key = layer(1)
        elif pairwise == "concatenation":
            self.query, self.key = layer(1), layer(1, bias=False)
        elif pairwise != "gaussian":
            self.query, self.key = layer(width), layer(width, bias=pairwise == "dot_product")
        self.add = Bottleneck(channels, hidden, norm=False, activation=None, bias=True, device=device, dtype=dtype)

    def weights(self, x: Tensor, keys_BQC: Tensor) -> Tensor:
        """beta (B, Q) of the keys of x."""
        vector_BC, offset_B1 = self._logit_vector(x, keys_BQC)
        logits_BQ = torch.einsum("bqc,bc->bq", keys_BQC, vector_BC)
        if self.pairwise in ("gaussian", "embedded_gaussian"):
            return logits_BQ.softmax(1)
        keys = keys_BQC.shape[1]
        if self.pairwise == "disentangled":
            return logits_BQ.softmax(1) + 1 / keys
        logits_BQ = logits_BQ + offset_B1
        return (logits_BQ if self.pairwise == "dot_product" else logits_BQ.relu()) / keys

    def _logit_vector(self, x: Tensor, keys_BQC: Tensor) -> tuple[Tensor, Tensor | float]:
        """v (B, C) and o (B, 1) of the logits v . x_j + o; o is left out where it cancels."""
        like = keys_BQC
        if self.form == "shared":
            assert self.key is not None
            vector_1C, offset_1 = self.key.weight.to(like), self.key.bias.to(like)
            return vector_1C.expand(len(x), -1), offset_1
        mean_BC = (positions(x).to(like) if self.subsample else keys_BQC).mean(1)
        if self.query is None or self.key is None:
            return self.scale * mean_BC, 0.0
        query_BD = _apply(self.query, mean_BC)
        if self.pairwise == "concatenation":
            return self.key.weight.to(like).expand(len(x), -1), query_BD
        offset = 0.0 if self.key.bias is None else query_BD @ self.key.bias.to(like)[:, None]
        return query_BD @ self.key.weight.to(like), offset

    def added(self, x: Tensor) -> Tensor:
        """What is added to every position, (B, C), float32 or wider."""
        with without_autocast(x):
            keys_BQC = positions(halve(x) if self.subsample else x).to(accumulate_dtype(x))
            beta_BQ = self.weights(x, keys_BQC)
            pooled_BC = torch.einsum("bq,bqc->bc", beta_BQ, keys_BQC)
            values_BV = F.linear(pooled_BC, self.add.reduce.weight.to(pooled_BC))
            values_BV = values_BV + beta_BQ.sum(1, keepdim=True) * self.add.reduce.bias.to(pooled_BC)
            return _apply(self.add.expand, values_BV)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return x + over_map(self.added(x), x)

    def extra_repr(self) -> str:
        return f"{self.channels}, pairwise={self.pairwise}, query={self.form}, subsample={self.subsample}"


def added(block: ContextBlock | OneMapContext, x: Tensor) -> Tensor:
    """What a replacement adds to every position of x, (B, C)."""
    if isinstance(block, OneMapContext):
        return block.added(x)
    assert block.add is not None
    return block.add(block.context(x))


def _apply(layer: nn.Linear, vector: Tensor) -> Tensor:
    return F.linear(vector, layer.weight.to(vector), None if layer.bias is None else layer.bias.to(vector))
