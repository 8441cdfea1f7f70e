"""Count, mean and spread of many figures at once, streamed, in constant memory, and across processes."""

from __future__ import annotations

import torch
from torch import Tensor

from gcnet.distributed import from_all


class Moments:
    """Count, mean and sum of squared deviations of the finite values under each key, by Chan's pairwise update.

    The state is one matrix with a row for each key seen. `compute` first gathers the rows of all processes, each of
    which must call it, also one without any data.

    Args:
        device: where the state lives; one that has float64.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.rows = torch.empty(0, 4, dtype=torch.float64, device=device)

    def update(self, keys: Tensor, values: Tensor) -> None:
        """Add values.

        Args:
            keys: (n,) whole numbers below 2^53, those of the values.
            values: (n,); NaN and infinite ones are left out.
        """
        finite = values.isfinite()
        values = values[finite]
        new = torch.stack([keys[finite].to(values), torch.ones_like(values), values, torch.zeros_like(values)], dim=1)
        self.rows = _merged(torch.cat([self.rows, new.to(self.rows)]))

    def compute(self) -> dict[int, tuple[int, float, float]]:
        """Key -> count, mean, sum of squared deviations from the mean, over all processes."""
        merged = _merged(torch.cat(from_all(self.rows.cpu())))
        return {int(key): (int(count), mean, square) for key, count, mean, square in merged.tolist()}


def _merged(rows: Tensor) -> Tensor:
    """Rows (key, count, mean, square) with one row for each key."""
    keys, place = rows[:, 0].unique(return_inverse=True)
    _, count, mean, square = rows.unbind(dim=1)
    zeros = torch.zeros_like(keys)
    counts = zeros.index_add(0, place, count)
    means = zeros.index_add(0, place, count * mean) / counts
    squares = zeros.index_add(0, place, square + count * (mean - means[place]).square())
    return torch.stack([keys, counts, means, squares], dim=1)
