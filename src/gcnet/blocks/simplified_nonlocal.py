"""SNL, the simplified non-local block (arXiv 1904.11492)."""

import torch

from gcnet.blocks.context import ContextBlock, Fusion, Gate, Pool


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
