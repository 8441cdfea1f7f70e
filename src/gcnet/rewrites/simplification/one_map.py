"""What a non-local block becomes once its query is one vector per image: one map of weights, one vector added.

B images, C channels, D channels of query and key, V channels of the values, P positions, Q keys.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.blocks.as_made import tensors_of
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
        self.add = WeightedValues(channels, hidden, norm=False, activation=None, bias=True, device=device, dtype=dtype)

    def added(self, x: Tensor) -> Tensor:
        """What is added to every position, (B, C), float32 or wider."""
        keys_BQC = positions(halve(x) if self.subsample else x)
        return self.add(keys_BQC, self.weights(x, keys_BQC))

    def weights(self, x: Tensor, keys_BQC: Tensor) -> Tensor:
        """beta (B, Q) of the keys of x, float32 or wider."""
        layers = [layer for layer in (self.query, self.key) if layer is not None]
        wide, keys = accumulate_dtype(x), keys_BQC.shape[1]
        if all(tensors_of(layer, nn.Linear) is not None for layer in layers):
            with without_autocast(x):
                wide_BQC = keys_BQC.to(wide)
                vector_BC, offset_B1 = self._logit_vector(x, wide_BQC)
                logits_BQ = torch.einsum("bqc,bc->bq", wide_BQC, vector_BC)
                if self.pairwise in ("dot_product", "concatenation"):  # elsewhere it cancels
                    logits_BQ = logits_BQ + offset_B1
        else:
            logits_BQ = self._called_logits(x, keys_BQC).to(wide)
        if self.pairwise in ("gaussian", "embedded_gaussian"):
            return logits_BQ.softmax(1)
        if self.pairwise == "disentangled":
            return logits_BQ.softmax(1) + 1 / keys
        return (logits_BQ if self.pairwise == "dot_product" else logits_BQ.relu()) / keys

    def _logit_vector(self, x: Tensor, keys_BQC: Tensor) -> tuple[Tensor, Tensor | float]:
        """v (B, C) and o (B, 1) of the logits v . x_j + o."""
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

    def _called_logits(self, x: Tensor, keys_BQC: Tensor) -> Tensor:
        """The logits (B, Q) where a layer is more than its weights: the key at every position."""
        assert self.key is not None
        key_BQD = self.key(keys_BQC)
        if self.query is None:
            return key_BQD[..., 0]
        query_BD = self.query(positions(x).mean(1, dtype=accumulate_dtype(x)).to(x.dtype))
        if self.pairwise == "concatenation":
            return key_BQD[..., 0] + query_BD
        return torch.einsum("bqd,bd->bq", key_BQD, query_BD)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        return x + over_map(self.added(x), x)

    def extra_repr(self) -> str:
        return f"{self.channels}, pairwise={self.pairwise}, query={self.form}, subsample={self.subsample}"


class WeightedValues(Bottleneck):
    """W_z (sum_j beta_j (W_v x_j + b_v)) + b_z: values are gathered before W_v, unless that layer has to be called."""

    def forward(self, keys_BQC: Tensor, beta_BQ: Tensor) -> Tensor:
        """The vector added, (B, C), in the dtype of beta (B, Q)."""
        called_BQV = None if tensors_of(self.reduce, nn.Linear) else self.reduce(keys_BQC)
        with without_autocast(beta_BQ):
            gathered = torch.einsum("bq,bqc->bc", beta_BQ, (keys_BQC if called_BQV is None else called_BQV).to(beta_BQ))
            if called_BQV is None:
                gathered = F.linear(gathered, self.reduce.weight.to(beta_BQ))
                gathered = gathered + beta_BQ.sum(1, keepdim=True) * self.reduce.bias.to(beta_BQ)
            if tensors_of(self.expand, nn.Linear):
                return _apply(self.expand, gathered)
        return self.expand(gathered.to(keys_BQC.dtype)).to(beta_BQ)


def added(block: ContextBlock | OneMapContext, x: Tensor) -> Tensor:
    """What a replacement adds to every position of x, (B, C)."""
    if isinstance(block, OneMapContext):
        return block.added(x)
    assert block.add is not None
    return block.add(block.context(x))


def _apply(layer: nn.Linear, vector: Tensor) -> Tensor:
    return F.linear(vector, layer.weight.to(vector), None if layer.bias is None else layer.bias.to(vector))
