"""Generalized attention, the four terms of spatial attention in one block (arXiv 1904.05873).

B images, C channels, H x W queries (P), I x J keys (Q), N heads of D channels.
"""

import torch
from torch import Tensor, nn

from gcnet import ops
from gcnet.blocks.as_made import tensors_of
from gcnet.blocks.nonlocal_block import as_map, positions
from gcnet.blocks.options import check_channels, check_count
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map
from gcnet.ops.precision import accumulate_dtype, without_autocast

WAVE_LENGTH = 1000  # of the slowest sine, in positions (the authors' code)


class GeneralizedAttention(nn.Module):
    """x_i + gamma W_o sum_j softmax_j(sum of the chosen terms) W_v x_j, gamma = 0 (arXiv 1904.05873, eqs. 1-5).

    | `terms` | logit of query i and key j | what it compares |
    |---|---|---|
    | 1000 | q_i . k_j | content of the query with that of the key |
    | 0100 | q_i . r_ij | content of the query with the relative position |
    | 0010 | u . k_j | content of the key alone: one map for all queries |
    | 0001 | v . r_ij | relative position alone |

    r_ij is a learnt map of sines and cosines of the two differences, a row's part plus a column's part, over sqrt(2).
    There is no scaling by sqrt(D). No P x Q matrix is formed: see `gcnet.ops.relative_attend`; with "0010" alone all
    positions share one context, which is pooled before W_v, in O(P C N).

    Args:
        channels: C, channels of the map.
        terms: Which of the four terms are on, four digits of 0 and 1. The published models have "1111" and "0010".
        heads: N; each has D = C // heads channels.
        kv_stride: Keys and values come from every kv_stride-th row and column.
        position_channels: Sines and cosines of both axes together, a multiple of 4; None: C, down to such a multiple.
            Only for terms with positions.
        device: Of the parameters.
        dtype: Of the parameters.

    Shape:
        x (B, C, H, W) -> the same; dtype of x.

    Raises:
        ValueError: an option out of its range, or x is no (B, channels, H, W) map.

    Example:
        >>> x = torch.randn(2, 32, 7, 5)
        >>> torch.equal(GeneralizedAttention(32)(x), x)
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        terms: str = "1111",
        heads: int = 8,
        kv_stride: int = 2,
        position_channels: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels)
        if not isinstance(terms, str) or len(terms) != 4 or set(terms) - set("01") or "1" not in terms:
            raise GcnetError(f"terms={terms!r} is not allowed; give four digits of 0 and 1, at least one 1: '1111'")
        if check_count("heads", heads) > channels:
            raise GcnetError(
                f"heads={heads} leaves no channel for a head at channels={channels}; use at most {channels}"
            )
        pairs, relative, saliency, place = (digit == "1" for digit in terms)
        self.channels, self.terms, self.heads = channels, terms, heads
        self.kv_stride = check_count("kv_stride", kv_stride)
        positional = relative or place
        if position_channels is not None and not positional:
            raise GcnetError(
                f"position_channels={position_channels} does not go with terms={terms!r}, which have no position; "
                "leave it out"
            )
        features = max(4, channels // 4 * 4) if position_channels is None else position_channels
        if check_count("position_channels", features) % 4:
            raise GcnetError(f"position_channels={features} is no multiple of 4: a sine and a cosine for two axes")
        hidden = channels // heads * heads
        self.waves = features // 4  # of each axis, a sine and a cosine each

        def layer(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=bias, device=device, dtype=dtype)

        def vector() -> nn.Parameter:
            return nn.Parameter(torch.empty(hidden, device=device, dtype=dtype))

        self.query = layer(channels, hidden) if pairs or relative else None
        self.key = layer(channels, hidden) if pairs or saliency else None
        self.value = layer(channels, hidden)
        self.rows = layer(features // 2, hidden) if positional else None
        self.columns = layer(features // 2, hidden) if positional else None
        self.content_bias = vector() if saliency else None
        self.position_bias = vector() if place else None
        self.out = layer(hidden, channels, bias=True)
        self.gamma = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As published: weights uniform with variance 1 / inputs, u and v uniform below 1 / sqrt(2 D), gamma zero."""
        for layer in (self.query, self.key, self.value, self.rows, self.columns, self.out):
            if layer is not None:
                nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(self.out.bias)
        bound = (2 * (self.channels // self.heads)) ** -0.5
        for vector in (self.content_bias, self.position_bias):
            if vector is not None:
                nn.init.uniform_(vector, -bound, bound)
        nn.init.zeros_(self.gamma)

    def context(self, x: Tensor) -> Tensor:
        """What gamma multiplies, (B, C, H, W); (B, C, 1, 1) where all positions share it."""
        keys = x[:, :, :: self.kv_stride, :: self.kv_stride]
        if self.terms == "0010":
            return self.out(self._pool(keys).to(x.dtype))[:, :, None, None]
        y_BNHWD = self._attend(x, keys)
        return as_map(self.out(y_BNHWD.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)), x)

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels, (2,))
        return (x + self.gamma * self.context(x)).to(x.dtype)

    def _attend(self, x: Tensor, keys: Tensor) -> Tensor:
        """What each head gathers, (B, N, H, W, D)."""
        pairs, relative = self.terms[0] == "1", self.terms[1] == "1"
        value_BNIJD = self._split(self.value, keys)
        query_BNHWD = None if self.query is None else self._split(self.query, x)
        key_BNIJD = None if self.key is None else self._split(self.key, keys)
        content_BNHWD = _sum(query_BNHWD if pairs else None, self._bias(self.content_bias))
        position_BNHWD = _sum(query_BNHWD if relative else None, self._bias(self.position_bias))
        if position_BNHWD is None:
            assert content_BNHWD is not None
            assert key_BNIJD is not None
            theta, phi, g = (t.flatten(2, 3).flatten(0, 1) for t in (content_BNHWD, key_BNIJD, value_BNIJD))
            y_MPD = ops.nonlocal_attend(theta, phi, g, pairwise="embedded_gaussian")
            return y_MPD.unflatten(1, x.shape[2:]).unflatten(0, value_BNIJD.shape[:2])
        (H, W), (I, J) = x.shape[2:], keys.shape[2:]
        return ops.relative_attend(
            content_BNHWD,
            key_BNIJD,
            value_BNIJD,
            position_query=position_BNHWD,
            rows=self._features(self.rows, H, I, x),
            columns=self._features(self.columns, W, J, x),
        )

    def _pool(self, keys: Tensor) -> Tensor:
        """What each head gathers with the key's content alone, (B, N D): the weights sum to one, so W_v can wait."""
        assert self.key is not None
        assert self.content_bias is not None
        wide = accumulate_dtype(keys)
        bias_ND = self.content_bias.to(wide).unflatten(0, (self.heads, -1))
        of_key, of_value = tensors_of(self.key, nn.Linear), tensors_of(self.value, nn.Linear)
        if of_key is None or of_value is None:  # they have to be called
            key_BNQD, value_BNQD = (self._split(layer, keys).flatten(2, 3).to(wide) for layer in (self.key, self.value))
            with without_autocast(keys):
                weights_BNQ = torch.einsum("nd,bnqd->bnq", bias_ND, key_BNQD).softmax(dim=2)
                return torch.einsum("bnq,bnqd->bnd", weights_BNQ, value_BNQD).flatten(1)
        with without_autocast(keys):
            keys_BQC = positions(keys).to(wide)
            key_NDC, value_NDC = (weight.to(wide).unflatten(0, (self.heads, -1)) for weight, _ in (of_key, of_value))
            vector_NC = torch.einsum("nd,ndc->nc", bias_ND, key_NDC)
            weights_BNQ = (keys_BQC @ vector_NC.t()).softmax(dim=1).transpose(1, 2)
            return torch.einsum("bnc,ndc->bnd", weights_BNQ @ keys_BQC, value_NDC).flatten(1)

    def _split(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """The layer at every position, one group of channels per head: (B, C, H, W) -> (B, N, H, W, D)."""
        y_BHWND = layer(positions(x)).unflatten(1, x.shape[2:]).unflatten(3, (self.heads, -1))
        return y_BHWND.permute(0, 3, 1, 2, 4)

    def _bias(self, vector: Tensor | None) -> Tensor | None:
        """u or v as a query that is the same at all positions, (1, N, 1, 1, D)."""
        return None if vector is None else vector.view(1, self.heads, 1, 1, -1)

    def _features(self, layer: nn.Linear | None, queries: int, keys: int, x: Tensor) -> Tensor:
        """Features of all pairs along one axis, (N, queries, keys, D): learnt maps of sines and cosines."""
        assert layer is not None
        waves = torch.arange(self.waves, device=x.device, dtype=accumulate_dtype(x))
        waves = WAVE_LENGTH ** (waves / self.waves)
        of_query, of_key = (torch.arange(n, device=x.device, dtype=waves.dtype) for n in (queries, keys))
        angles = (of_query[:, None] - self.kv_stride * of_key)[..., None] / waves
        features = layer(torch.cat([angles.sin(), angles.cos()], dim=-1).to(x.dtype)) / 2**0.5
        return features.unflatten(2, (self.heads, -1)).permute(2, 0, 1, 3)

    def extra_repr(self) -> str:
        return f"{self.channels}, terms={self.terms}, heads={self.heads}, kv_stride={self.kv_stride}"


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of those that are there."""
    return b if a is None else a if b is None else a + b
