"""The context blocks with names of their own: GC and SNL (arXiv 1904.11492), SE (arXiv 1709.01507)."""

import torch

from gcnet.blocks.context import Activation, ContextBlock, Fusion, Gate, Pool, Transform


class GlobalContext(ContextBlock):
    """Global context block: attention pool, bottleneck with LayerNorm, add (arXiv 1904.11492, eq. 5).

    `ContextBlock`, whose defaults are GCNet's; its docstring explains the options.

    Example:
        >>> sum(p.numel() for p in GlobalContext(1024).parameters())
        133313
    """


class SimplifiedNonLocal(ContextBlock):
    """Simplified non-local block: attention pool, one linear layer, add (arXiv 1904.11492, eq. 3).

    `ContextBlock` with a linear transform; its docstring explains the options.

    Example:
        >>> sum(p.numel() for p in SimplifiedNonLocal(1024).parameters())
        1049601
    """

    def __init__(
        self,
        channels: int,
        *,
        pool: Pool = "attention",
        fusion: Fusion = "add",
        gate: Gate = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, pool=pool, transform="linear", fusion=fusion, gate=gate, device=device, dtype=dtype)


class SqueezeExcitation(ContextBlock):
    """Squeeze-and-excitation: average pool, bottleneck without norm, scale (arXiv 1709.01507, eqs. 2-4).

    `ContextBlock` with SENet's defaults; its docstring explains the options.

    Example:
        >>> sum(p.numel() for p in SqueezeExcitation(1024).parameters())
        132160
    """

    def __init__(
        self,
        channels: int,
        *,
        pool: Pool = "average",
        transform: Transform = "bottleneck",
        fusion: Fusion = "scale",
        hidden: int | None = None,
        reduction: int = 16,
        norm: bool = False,
        activation: Activation | None = "relu",
        gate: Gate = "sigmoid",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            channels,
            pool=pool,
            transform=transform,
            fusion=fusion,
            hidden=hidden,
            reduction=reduction,
            norm=norm,
            activation=activation,
            gate=gate,
            bias=bias,
            device=device,
            dtype=dtype,
        )
