"""What a block costs: parameters and multiply-accumulates; time is measured in `gcnet.surgery.timing`."""

from __future__ import annotations

from torch import Tensor, nn

from gcnet.analysis.observe import observe


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of one forward pass in evaluation mode; what counts is said at `gcnet.profile`.

    The model's mode and statistics stay as they are.

    Args:
        model: any module.
        images: its input; the count is for the whole batch.
    """
    return observe(model, images).macs
