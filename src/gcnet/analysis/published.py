"""The ablations of GCNet's paper (arXiv 1904.11492) as axes of `compare`: their rows, and what was published of each.

The figures are of Mask R-CNN with ResNet-50 and FPN on COCO, synchronised batch norm, 1x schedule. Each carries its
source; a figure that is in no public source we could read and that is not remembered for certain is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["s", "d", "r"]
SOURCES: dict[Source, str] = {
    "s": "in a public source (the tables of github.com/xvjiarui/GCNet; for ImageNet public lists of results)",
    "d": "derived from the paper's definitions and from other published figures",
    "r": "recalled from the paper, not verified",
}


@dataclass(frozen=True)
class Published:
    """What was published of a row; None where nothing is known for certain.

    Attributes:
        box_ap, mask_ap: of Mask R-CNN R50 on COCO, in percent.
        ap_source: where both are from.
        parameters: that the blocks add, derived from the definitions; of the row without blocks those of the detector.
        gmacs: multiply-accumulates that the blocks add at 1280x800, in G, where recalled a difference of totals that
            were rounded to 0.1 G; of the row without blocks those of the detector. The paper calls them FLOPs.
        top1: of ResNet-50 with these blocks on ImageNet, in percent.
        top1_source: where it is from.
    """

    box_ap: float | None = None
    mask_ap: float | None = None
    ap_source: Source | None = None
    parameters: int | None = None
    parameters_source: Source = "d"
    gmacs: float | None = None
    gmacs_source: Source = "r"
    top1: float | None = None
    top1_source: Source | None = None

    @property
    def figures(self) -> dict[str, tuple[float | None, Source | None]]:
        """Name -> figure and its source."""
        return {
            "coco_mask_rcnn_r50_box_AP": (self.box_ap, self.ap_source),
            "coco_mask_rcnn_r50_mask_AP": (self.mask_ap, self.ap_source),
            "parameters": (self.parameters, self.parameters_source),
            "gmacs_1280x800": (self.gmacs, self.gmacs_source),
            "imagenet_r50_top1": (self.top1, self.top1_source),
        }

    @property
    def sources(self) -> set[Source | None]:
        """Of the figures that are known."""
        return {source for value, source in self.figures.values() if value is not None}


@dataclass(frozen=True)
class Row:
    """One row of an ablation.

    Attributes:
        published: its figures.
        block: what is inserted; None for the block that is varied.
        place: arguments of `insert` that the row sets.
        options: options of the block that the row sets.
    """

    published: Published
    block: str | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


NONE = Published(37.2, 33.8, "s", 44_400_000, "r", 279.4, top1=76.9, top1_source="r")
ALL_GC = Published(39.4, 35.7, "s", 2_521_741, gmacs=0.2, top1=77.7, top1_source="s")
ONE: Mapping[str, Any] = {"stages": ("c4",), "where": "before_last"}  # the paper's place of a single block

AXES: dict[str, dict[str, Row]] = {
    "block": {
        "none": Row(NONE),
        # sub-sampled as in the paper: that gives its cost
        "nl+1": Row(
            Published(38.0, 34.7, "d", 2_099_712, gmacs=9.3, gmacs_source="d"), "nl", ONE, {"subsample": "before"}
        ),
        "snl+1": Row(Published(38.1, 35.0, "r", 1_049_601, gmacs=0.0), "snl", ONE),
        "gc+1": Row(Published(38.1, 34.9, "r", 133_313, gmacs=0.0), "gc", ONE),
        "gc+all": Row(ALL_GC, "gc"),
    },
    "position": {
        "after_1x1": Row(ALL_GC, place={"position": "after_1x1"}),
        "after_add": Row(Published(parameters=2_521_741), place={"position": "after_add"}),
    },
    "stages": {
        "c3": Row(Published(parameters=135_556), place={"stages": ("c3",)}),
        "c4": Row(Published(parameters=799_878), place={"stages": ("c4",)}),
        "c5": Row(Published(parameters=1_586_307), place={"stages": ("c5",)}),
        "c3+c4+c5": Row(ALL_GC, place={"stages": ("c3", "c4", "c5")}),
    },
    "bottleneck": {
        "linear": Row(Published(39.4, None, "r", 19_937_293), options={"transform": "linear"}),
        "bottleneck": Row(Published(parameters=2_519_949), options={"transform": "bottleneck", "norm": False}),
        "bottleneck+norm": Row(ALL_GC, options={"transform": "bottleneck", "norm": True}),
    },
    "reduction": {
        "4": Row(Published(39.9, 36.2, "s", 10_000_909, gmacs=0.2), options={"reduction": 4}),
        "8": Row(Published(39.5, None, "r", 5_014_797, gmacs=0.2), options={"reduction": 8}),
        "16": Row(ALL_GC, options={"reduction": 16}),
        "32": Row(Published(39.1, None, "r", 1_275_213, gmacs=0.2), options={"reduction": 32}),
    },
    "pool-fusion": {
        "average+scale": Row(
            Published(38.2, 34.7, "d", 2_507_392), options={"pool": "average", "fusion": "scale", "norm": True}
        ),
        "average+add": Row(Published(parameters=2_507_392), options={"pool": "average", "fusion": "add", "norm": True}),
        "attention+scale": Row(
            Published(parameters=2_521_741), options={"pool": "attention", "fusion": "scale", "norm": True}
        ),
        "attention+add": Row(ALL_GC, options={"pool": "attention", "fusion": "add", "norm": True}),
    },
}
