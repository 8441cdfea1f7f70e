"""Every block by name: how it is built, where it comes from, where `insert` puts it unless told otherwise."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gcnet.blocks.bilinear_attention import BilinearAttention
from gcnet.blocks.cbam import Cbam
from gcnet.blocks.context import ContextBlock
from gcnet.blocks.criss_cross import CrissCross
from gcnet.blocks.disentangled_nonlocal import DisentangledNonLocal
from gcnet.blocks.dual import DualAttention
from gcnet.blocks.efficient_channel_attention import EfficientChannelAttention
from gcnet.blocks.gather_excite import GatherExcite
from gcnet.blocks.generalized_attention import GeneralizedAttention
from gcnet.blocks.global_context import GlobalContext
from gcnet.blocks.nonlocal_block import NonLocal
from gcnet.blocks.simplified_nonlocal import SimplifiedNonLocal
from gcnet.blocks.squeeze_excitation import SqueezeExcitation
from gcnet.errors import GcnetError, GcnetTypeError


@dataclass(frozen=True, kw_only=True)
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


CATALOGUE: dict[str, Entry] = {
    "gc": Entry(
        build=GlobalContext,
        title="Global context (GCNet)",
        paper="1904.11492",
        complexity="O(P C)",
        identity={"gate": "identity"},
    ),
    "snl": Entry(
        build=SimplifiedNonLocal,
        title="Simplified non-local",
        paper="1904.11492",
        complexity="O(P C + C^2)",
        identity={"gate": "identity"},
    ),
    "se": Entry(
        build=SqueezeExcitation,
        title="Squeeze-and-excitation (SENet)",
        paper="1709.01507",
        complexity="O(P C)",
        identity={"gate": "identity"},
    ),
    "context": Entry(
        build=ContextBlock,
        title="Context framework: any pool, transform, fusion",
        paper="1904.11492",
        complexity="O(P C)",
        identity={"gate": "identity"},
    ),
    "nl": Entry(
        build=NonLocal,
        title="Non-local (NLNet)",
        paper="1711.07971",
        complexity="O(P C^2 + P^2 C)",
        stages=("c4",),
        where="before_last",
    ),
    "cbam": Entry(
        build=Cbam,
        title="Convolutional block attention (CBAM)",
        paper="1807.06521",
        complexity="O(P C)",
        dims=(2,),
    ),
    "ge": Entry(
        build=GatherExcite,
        title="Gather-excite (GENet)",
        paper="1810.12348",
        complexity="O(P C)",
        dims=(2,),
    ),
    "eca": Entry(
        build=EfficientChannelAttention,
        title="Efficient channel attention (ECA-Net)",
        paper="1910.03151",
        complexity="O(P C)",
        dims=(2,),
    ),
    "bat": Entry(
        build=BilinearAttention,
        title="Grouped bilinear attentional transform (BAT)",
        paper="CVPR 2020",
        complexity="O(P C^2 + P^1.5 C)",
        dims=(2,),
        stages=("c4",),
        where="before_last",
    ),
    "criss_cross": Entry(
        build=CrissCross,
        title="Criss-cross attention, twice (CCNet)",
        paper="1811.11721",
        complexity="O(P C^2 + P^1.5 C)",
        dims=(2,),
        stages=("c4",),
        where="before_last",
    ),
    "dual": Entry(
        build=DualAttention,
        title="Position and channel attention (DANet)",
        paper="1809.02983",
        complexity="O(P C^2 + P^2 C)",
        stages=("c4",),
        where="before_last",
    ),
    "dnl": Entry(
        build=DisentangledNonLocal,
        title="Disentangled non-local (DNL)",
        paper="2006.06668",
        complexity="O(P C^2 + P^2 C)",
        stages=("c4",),
        where="before_last",
    ),
    "ga": Entry(
        build=GeneralizedAttention,
        title="Generalized attention: content and relative positions",
        paper="1904.05873",
        complexity="O(P C^2 + P^2 C)",
        dims=(2,),
        stages=("c4",),
        where="before_last",
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
