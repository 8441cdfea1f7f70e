"""What the figures of every task have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn


class Metrics(nn.Module):
    """Figures gathered over batches: `update`, then `compute` and `reset`."""

    @abstractmethod
    def update(self, outputs: Any, batch: Any, loss: Tensor | None = None) -> None:
        """Take a batch in; `loss` is computed from the outputs, where the task has one, unless it is given."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """The figures; empty if no example was seen."""

    @abstractmethod
    def reset(self) -> None: ...
