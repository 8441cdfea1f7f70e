"""How each rewrite on a model's record is done again, by its name there.

A replay makes the structure alone: it reads no weights, images or files, and the result is filled afterwards.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gcnet.rewrites import acceleration, deformation, folding, insertion, simplification

REPLAYS: dict[str, Callable[[nn.Module, Mapping[str, Any]], nn.Module]] = {
    "insert": insertion.replay,
    "deform": deformation.replay,
    "accelerate": acceleration.replay,
    "simplify": simplification.replay,
    "fold": folding.replay,
}
