"""Pictures of what a detector found, and of where its context blocks look, by torchvision's drawing functions."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from gcnet.blocks.context import ContextBlock

GOLDEN = 0.618034  # neighbours in a list get hues far from each other


def draw_objects(
    image: Tensor, boxes: Tensor, texts: Sequence[str], masks: Tensor | None = None, *, alpha: float = 0.4
) -> Tensor:
    """The image with boxes, a text at each, and masks in the colour of their box.

    Args:
        image: uint8 (3, H, W).
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        texts: N lines such as "person 0.98".
        masks: bool (N, H, W).
        alpha: opacity of the masks.

    Returns:
        uint8 (3, H, W).
    """
    if not len(boxes):
        return image.clone()
    colours = [_colour(place) for place in range(len(boxes))]
    if masks is not None:
        image = draw_segmentation_masks(image, masks, alpha=alpha, colors=colours)  # type: ignore[arg-type]
    width = max(1, round(min(image.shape[-2:]) / 250))
    # a box of no whole pixel cannot be drawn
    drawn = boxes.round()
    drawn[:, 2:] = torch.maximum(drawn[:, 2:], drawn[:, :2] + 1)
    return draw_bounding_boxes(image, drawn, labels=list(texts), colors=colours, width=width)  # type: ignore[arg-type]


def _colour(place: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(place * GOLDEN % 1, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, every call of a context block with attention puts its map (B, H, W) under the block's name.

    A map is the softmax over all positions of the map that the block sees (arXiv 1904.11492, eq. 4); with padding,
    positions of the padding are part of it.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str, block: ContextBlock) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            assert block.key is not None
            logits = torch.einsum("bchw,c->bhw", args[0].float(), block.key.weight[0].float())
            found[name] = logits.flatten(1).softmax(1).view_as(logits)

        return block.register_forward_pre_hook(note)

    handles = [
        watch(name, module)
        for name, module in model.named_modules()
        if isinstance(module, ContextBlock) and module.key is not None
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def last_of_stages(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the maps of equal size (a stage's blocks) the last one."""
    return {name: maps[name] for name in {tuple(map_.shape[1:]): name for name, map_ in maps.items()}.values()}


def draw_attention(image: Tensor, maps: Sequence[Tensor], share: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Copies of the image side by side, each under one map as heat: dark where little is looked at, red where most.

    Args:
        image: uint8 (3, H, W).
        maps: (h, w) each.
        share: of a map's height and width what shows the image; the rest is padding.

    Returns:
        uint8 (3, H, W * number of maps).
    """
    return torch.cat([_heat(image, map_, share) for map_ in maps], dim=-1)


def _heat(image: Tensor, map_hw: Tensor, share: tuple[float, float]) -> Tensor:
    height, width = map_hw.shape
    seen = map_hw[: max(1, round(height * share[0])), : max(1, round(width * share[1]))]
    large = F.interpolate(seen[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    level = ((large - large.min()) / (large.max() - large.min()).clamp(min=1e-12)).cpu()
    red, green, blue = 2 * level, 1 - (2 * level - 1).abs(), 1 - 2 * level
    heat = 255 * torch.stack([red, green, blue]).clamp(0, 1)
    return (0.5 * image.cpu() + 0.5 * heat).round().to(torch.uint8)
