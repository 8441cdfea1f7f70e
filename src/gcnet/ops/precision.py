"""The precision in which the ops compute: float32 or wider, also for half-precision inputs and under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def accumulate_dtype(x: Tensor) -> torch.dtype:
    """float32 for half-precision tensors, the tensor's own dtype otherwise."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Inside this context matmuls keep the dtype of their inputs; nothing happens where autocast is off."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
