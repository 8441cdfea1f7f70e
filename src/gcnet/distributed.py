"""What several training processes tell each other; one process alone is its own answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def gathered(own: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries of all processes in one table; a key that several of them have counts once."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(own)
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, dict(own))
    return {key: value for part in parts for key, value in part.items()}
