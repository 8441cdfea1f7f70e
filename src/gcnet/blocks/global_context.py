"""GC, the block of GCNet (arXiv 1904.11492)."""

import torch

from gcnet.blocks.context import Activation, ContextBlock, Fusion, Gate, Pool, Transform


class GlobalContext(ContextBlock):
    """Global context block: attention pool, bottleneck with LayerNorm, add (arXiv 1904.11492, eq. 5).

    `ContextBlock` with GCNet's defaults; its docstring explains the options.

    Example:
        >>> sum(p.numel() for p in GlobalContext(1024).parameters())
        133313
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
