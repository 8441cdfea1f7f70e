"""Every block by name: how it is built, where it comes from, where `insert` puts it unless told otherwise."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gcnet.blocks.context import ContextBlock
from gcnet.blocks.criss_cross import CrissCross
from gcnet.blocks.disentangled_nonlocal import DisentangledNonLocal
from gcnet.blocks.dual import DualAttention
from gcnet.blocks.from_timm import BilinearAttention, Cbam, EfficientChannelAttention
from gcnet.blocks.gather_excite import GatherExcite
from gcnet.blocks.generalized_attention import GeneralizedAttention
from gcnet.blocks.global_context import GlobalContext, SimplifiedNonLocal, SqueezeExcitation
from gcnet.blocks.nonlocal_block import NonLocal
from gcnet.errors import GcnetError, GcnetTypeError


@dataclass(frozen=True)
class Entry:
    """One block of the catalogue.

    Attributes:
        build: `channels, **options -> Module`; all options have defaults.
        title: Its name in words.
        paper: arXiv id, or the venue of a paper that is not there.
        complexity: Cost in time over P positions and C channels.
        dims: Numbers of spatial dimensions it takes.
        stages: Stages that `insert` chooses by default.
        where: Which units of a stage `insert` chooses by default.
        identity: Options that make it start as the identity, set by `insert` unless given.
    """

    build: Callable[..., nn.Module]
    title: str
    paper: str
    complexity: str
    dims: tuple[int, ...] = (1, 2, 3)
    stages: tuple[str, ...] = ("c3", "c4", "c5")
    where: str = "all"
    identity: Mapping[str, Any] = field(default_factory=dict)


_PAIRS, _CROSS = "O(P C^2 + P^2 C)", "O(P C^2 + P^1.5 C)"
_C4 = (("c4",), "before_last")  # stages and where of the blocks whose cost grows faster than the map
_OPEN = {"gate": "identity"}

CATALOGUE: dict[str, Entry] = {
    "gc": Entry(GlobalContext, "Global context (GCNet)", "1904.11492", "O(P C)", identity=_OPEN),
    "snl": Entry(SimplifiedNonLocal, "Simplified non-local", "1904.11492", "O(P C + C^2)", identity=_OPEN),
    "se": Entry(SqueezeExcitation, "Squeeze-and-excitation (SENet)", "1709.01507", "O(P C)", identity=_OPEN),
    "context": Entry(
        ContextBlock, "Context framework: any pool, transform, fusion", "1904.11492", "O(P C)", identity=_OPEN
    ),
    "nl": Entry(NonLocal, "Non-local (NLNet)", "1711.07971", _PAIRS, (1, 2, 3), *_C4),
    "cbam": Entry(Cbam, "Convolutional block attention (CBAM)", "1807.06521", "O(P C)", (2,)),
    "ge": Entry(GatherExcite, "Gather-excite (GENet)", "1810.12348", "O(P C)", (2,)),
    "eca": Entry(EfficientChannelAttention, "Efficient channel attention (ECA-Net)", "1910.03151", "O(P C)", (2,)),
    "bat": Entry(BilinearAttention, "Grouped bilinear attentional transform (BAT)", "CVPR 2020", _CROSS, (2,), *_C4),
    "criss_cross": Entry(CrissCross, "Criss-cross attention, twice (CCNet)", "1811.11721", _CROSS, (2,), *_C4),
    "dual": Entry(DualAttention, "Position and channel attention (DANet)", "1809.02983", _PAIRS, (1, 2, 3), *_C4),
    "dnl": Entry(DisentangledNonLocal, "Disentangled non-local (DNL)", "2006.06668", _PAIRS, (1, 2, 3), *_C4),
    "ga": Entry(
        GeneralizedAttention, "Generalized attention: content and relative positions", "1904.05873", _PAIRS, (2,), *_C4
    ),
}


def list_blocks() -> list[str]:
    """Names that `create_block` and `insert` take.

    Example:
        >>> list_blocks()[:4]
        ['gc', 'snl', 'se', 'context']
    """
    return list(CATALOGUE)


def entry(name: str) -> Entry:
    """The catalogue's entry, or a ValueError that lists the names."""
    if name not in CATALOGUE:
        raise GcnetError(f"block {name!r} is unknown; use one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def create_block(name: str, channels: int, **options: Any) -> nn.Module:
    """Build a block by name.

    Args:
        name: One of `list_blocks()`.
        channels: Channels of the map it will see.
        **options: The block's own keyword arguments; all have defaults.

    Raises:
        ValueError: an unknown name or a value the block does not take.
        TypeError: an option the block does not have; the error lists those it has.

    Example:
        >>> create_block("gc", 256, reduction=4).channels
        256
    """
    build = entry(name).build
    check_options(name, options)
    return build(channels, **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that the block does not have."""
    allowed = block_options(name)
    for option in options:
        if option not in allowed:
            raise GcnetTypeError(f"block {name!r} has no option {option!r}; it has {', '.join(allowed)}")


def block_options(name: str) -> dict[str, Any]:
    """The block's options and their defaults."""
    parameters = inspect.signature(entry(name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
