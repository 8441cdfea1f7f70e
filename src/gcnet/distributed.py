"""What several training processes tell each other; one process alone is its own answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def from_all(own: Any) -> list[Any]:
    """What every process has, in the order of their ranks, in each of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return parts


def gathered(own: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries of all processes in one table; a key that several of them have counts once."""
    return {key: value for part in from_all(dict(own)) for key, value in part.items()}
