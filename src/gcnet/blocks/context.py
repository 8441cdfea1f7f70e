"""The global context framework of GCNet (arXiv 1904.11492, section 3.3): context modelling, transform, fusion.

B images, C channels, H hidden channels.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.blocks.as_made import as_made, pool, tensors_of
from gcnet.blocks.options import check_channels, check_choice, hidden_channels
from gcnet.errors import GcnetError
from gcnet.ops.checks import check_map
from gcnet.ops.context_vectors import Branch, context_vectors

Pool = Literal["attention", "average"]
Transform = Literal["bottleneck", "linear"]
Fusion = Literal["add", "scale", "both"]
Activation = Literal["relu", "silu", "gelu", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid", "identity"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hard_swish": nn.Hardswish,
}
_NAMES: dict[type, str] = {kind: name for name, kind in ACTIVATIONS.items()}


class ContextBlock(nn.Module):
    """z = F(x, delta(sum_j alpha_j x_j)), every choice of the paper's ablation (arXiv 1904.11492, eq. 4 and table 2).

    The last layer of each transform starts at zero, so with fusion "add" the block starts as the identity, bit for bit;
    with fusion "scale" it does so with `gate="identity"`, while the published `gate="sigmoid"` starts by halving x.

    Args:
        channels: C, channels of the map.
        pool: Context modelling: "attention" (one softmax map over all positions) or "average".
        transform: "bottleneck" (C -> H -> [LayerNorm] -> activation -> C) or "linear" (C -> C, without a bias).
        fusion: "add" (x + t), "scale" (x * gate(t)) or "both" (x * gate(t_scale) + t_add, two transforms).
        hidden: H; overrides `reduction`. Bottleneck only.
        reduction: H = C // reduction. Bottleneck only.
        norm: LayerNorm over the H channels. Bottleneck only.
        activation: Nonlinearity of the bottleneck; None for none.
        gate: Function of the scale branch: "sigmoid", "hard_sigmoid", or "identity" = 2 sigmoid, which is 1 at 0.
        bias: Whether the two layers of the bottleneck have biases.
        device: Where the parameters live.
        dtype: Floating-point type of the parameters.

    Shape:
        x (B, C, *spatial) -> (B, C, *spatial), one to three spatial dimensions; dtype of x.

    Raises:
        ValueError: an unknown choice, or a reduction that leaves no hidden channel.

    Example:
        >>> block = ContextBlock(64, pool="average", fusion="scale", gate="identity")
        >>> x = torch.randn(2, 64, 7, 7)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        pool: Pool = "attention",
        transform: Transform = "bottleneck",
        fusion: Fusion = "add",
        hidden: int | None = None,
        reduction: int = 16,
        norm: bool = True,
        activation: Activation | None = "relu",
        gate: Gate = "sigmoid",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels)
        check_choice("pool", pool, get_args(Pool))
        check_choice("transform", transform, get_args(Transform))
        check_choice("fusion", fusion, get_args(Fusion))
        check_choice("activation", activation, (*ACTIVATIONS, None))
        check_choice("gate", gate, get_args(Gate))
        if hidden is not None and transform == "linear":
            raise GcnetError(
                f"hidden={hidden} does not go with transform='linear', which has no hidden layer; leave it out"
            )
        self.channels, self.pool, self.fusion, self.gate = channels, pool, fusion, gate
        self.key = nn.Linear(channels, 1, device=device, dtype=dtype) if pool == "attention" else None

        def branch() -> nn.Module:
            if transform == "linear":
                return LinearTransform(channels, device=device, dtype=dtype)
            width = hidden_channels(channels, reduction, hidden)
            return Bottleneck(channels, width, norm=norm, activation=activation, bias=bias, device=device, dtype=dtype)

        self.scale = branch() if fusion in ("scale", "both") else None
        self.add = branch() if fusion in ("add", "both") else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as published: the key Kaiming normal (fan in), the last layer of each transform zero."""
        if self.key is not None:
            nn.init.kaiming_normal_(self.key.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(self.key.bias)
        for branch in (self.scale, self.add):
            if isinstance(branch, Bottleneck | LinearTransform):
                branch.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """The pooled vector of each image, (B, C)."""
        return pool(self.key, x)[1]

    def as_tensors(self) -> tuple[Tensor | None, Branch | None, Branch | None] | None:
        """Key, scale and add as tensors; None if a layer is not what the constructor made: it has to be called."""
        layers: dict[str, Any] = self._modules  # an attribute that is a layer takes a call in Python
        key, scale, add = layers.get("key"), layers.get("scale"), layers.get("add")
        of_key = None if key is None else tensors_of(key, nn.Linear)
        of_scale, of_add = _as_branch(scale), _as_branch(add)
        for layer, tensors in ((key, of_key), (scale, of_scale), (add, of_add)):
            if layer is not None and tensors is None:
                return None
        return None if of_key is None else of_key[0].squeeze(0), of_scale, of_add

    def forward(self, x: Tensor) -> Tensor:
        check_map(x, self.channels)
        tensors = None if torch.is_grad_enabled() else self.as_tensors()
        if tensors is not None:
            scale, add = scale_and_add(x, *tensors, self.gate)
        else:
            x, context = pool(self.key, x)
            scale = None if self.scale is None else open_gate(self.gate, self.scale(context))
            add = None if self.add is None else self.add(context)
        out = x
        if scale is not None:
            out = out * over_map(scale, x)
        if add is not None:
            out = out + over_map(add, x)
        return out

    def extra_repr(self) -> str:
        gate = "" if self.scale is None else f", gate={self.gate}"
        return f"{self.channels}, pool={self.pool}, fusion={self.fusion}{gate}"


class Bottleneck(nn.Module):
    """C -> H -> [LayerNorm over H] -> [activation] -> C on vectors (B, C), the transform of GC and SE."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        norm: bool,
        activation: str | None,
        bias: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(hidden, device=device, dtype=dtype) if norm else None
        self.activation = ACTIVATIONS[activation]() if activation is not None else None
        self.expand = nn.Linear(hidden, channels, bias=bias, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        self.reduce.reset_parameters()
        if self.norm is not None:
            self.norm.reset_parameters()
        zero_layer(self.expand)

    def forward(self, context_BC: Tensor) -> Tensor:
        hidden_BH = self.reduce(context_BC)
        if self.norm is not None:
            hidden_BH = self.norm(hidden_BH)
        if self.activation is not None:
            hidden_BH = self.activation(hidden_BH)
        return self.expand(hidden_BH)

    def as_branch(self) -> Branch | None:
        """The transform as tensors; None if it, or one of its layers, is not what the constructor made."""
        layers: dict[str, Any] = self._modules
        norm, activation = layers.get("norm"), layers.get("activation")
        gains = (None, None) if norm is None else tensors_of(norm, nn.LayerNorm)
        first, last = tensors_of(layers["reduce"], nn.Linear), tensors_of(layers["expand"], nn.Linear)
        name = None if activation is None else _NAMES.get(type(activation))
        if first is None or gains is None or last is None or not as_made(self, Bottleneck):
            return None
        if activation is not None and (name is None or not as_made(activation, ACTIVATIONS[name])):
            return None
        if isinstance(activation, nn.GELU) and activation.approximate != "none":
            return None
        return Branch((*first, *gains, *last), 1e-5 if norm is None else norm.eps, name)


class LinearTransform(nn.Module):
    """C -> C on vectors (B, C) without a bias, the transform of SNL."""

    def __init__(
        self, channels: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.project = nn.Linear(channels, channels, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        zero_layer(self.project)

    def forward(self, context_BC: Tensor) -> Tensor:
        return self.project(context_BC)

    def as_branch(self) -> Branch | None:
        """As `Bottleneck.as_branch`."""
        last = tensors_of(self.project, nn.Linear)
        return None if last is None or not as_made(self, LinearTransform) else Branch((None, None, None, None, *last))


def _as_branch(transform: Any) -> Branch | None:
    return transform.as_branch() if type(transform) in (Bottleneck, LinearTransform) else None


def scale_and_add(
    x: Tensor, key: Tensor | None, scale: Branch | None, add: Branch | None, gate: str
) -> tuple[Tensor | None, Tensor | None]:
    """What fusion needs, (B, C) each: the open gate and the added vector; None for the one unused."""
    found = context_vectors(x, key, [branch for branch in (scale, add) if branch is not None])
    return None if scale is None else open_gate(gate, found[0]), None if add is None else found[-1]


def zero_layer(layer: nn.Linear) -> None:
    """Weight and bias to zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def open_gate(gate: str, t: Tensor) -> Tensor:
    """The gate of the scale branch: "sigmoid", "hard_sigmoid", or "identity" = 2 sigmoid."""
    if gate == "identity":
        return 2 * t.sigmoid()
    return t.sigmoid() if gate == "sigmoid" else F.hardsigmoid(t)


def over_map(t_BC: Tensor, x: Tensor) -> Tensor:
    """One vector per image as a map that broadcasts over the positions of x, in the dtype of x."""
    t_BC = t_BC if t_BC.dtype is x.dtype else t_BC.to(x.dtype)
    return t_BC.reshape(t_BC.shape + (1,) * (x.ndim - 2))
