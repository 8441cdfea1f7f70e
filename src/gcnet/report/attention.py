"""Where the context blocks of a model look, drawn over the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.analysis.readers.attention import Attention, Seen
from gcnet.analysis.readers.blocks import readers
from gcnet.blocks import ContextBlock
from gcnet.surgery.foreign import convert, is_foreign
from gcnet.surgery.watching import watching
from gcnet.tasks.detection.draw import text_font

# Nine colours of cividis, which looks the same with and without a colour vision deficiency (Nunez et al. 2018).
CIVIDIS = (
    (0, 34, 78), (29, 54, 108), (67, 78, 108), (93, 101, 110), (122, 121, 119),
    (151, 143, 119), (186, 167, 108), (221, 194, 83), (254, 232, 56),
)  # fmt: skip
OPACITY = 0.45, 0.85  # of the colours where a block looks least and most
DIMMED = 0.7  # white would be brighter than the brightest colour
NARROWEST = 320  # pixels of a panel, so that its caption can be read
NO_MAP = (
    "show_attention=True: no block of this model has an attention map over the positions of a map "
    "(gc, snl, nl, dnl have; se and average pools have not); leave it out"
)
_ROWS = 256  # queries at once


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, every call of a block with attention over a 2D map puts its map (B, h, w) under the block's name.

    Which blocks: those that `gcnet.analyze` reads. A block with one map for all positions (GC, SNL) has that; of one
    with a map for each (NL, DNL) it is the mean over them, which is how much each position is looked at by all. Average
    pools (SE) are left out. Positions of padding are part of a map.
    """
    found: dict[str, Tensor] = {}
    known, _ = readers(model)

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        images = (args[0] if args else kwargs["x"]).shape[0]
        map_ = _seen(known[name](module, Seen(args, kwargs, output, images)).attention)
        if map_ is not None:
            found[name] = map_

    modules = {name: module for name in known if not _is_average(module := model.get_submodule(name))}
    with watching(modules, note):
        yield found


def _is_average(module: nn.Module) -> bool:
    ours = convert(module) if is_foreign(module) else module
    return isinstance(ours, ContextBlock) and ours.key is None


def _seen(attention: Attention) -> Tensor | None:
    """(B, h, w): how much each position is looked at, on average over queries and heads."""
    B, W, H, P, _ = attention.query.shape
    if attention.grid is None or W > 1:
        return None
    maps = attention.maps(slice(None))
    sums = [maps.weights(slice(start, start + _ROWS)).sum(dim=1) for start in range(0, P, _ROWS)]
    total = torch.stack(sums).sum(dim=0)
    seen = total[:, attention.prefix :].view(B, H, -1).mean(dim=1) / P
    return seen.view(B, *attention.grid[1]).float()


def last_of_stages(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the maps of equal size (a stage's blocks) the last one."""
    return {name: maps[name] for name in {tuple(map_.shape[1:]): name for name, map_ in maps.items()}.values()}


def draw_attention(image: Tensor, maps: Mapping[str, Tensor], share: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Copies of the image in grey side by side, each under one map: dark blue is looked at least, yellow most.

    The scale is that of each map alone, from nothing to its highest weight, which stands there as a multiple of the
    mean weight. Colours go by the square root: else the few positions that a map favours leave all others dark.

    Args:
        image: uint8 (3, H, W).
        maps: (h, w) each, by name.
        share: of a map's height and width what shows the image; the rest is padding.

    Returns:
        uint8 (3, H', W').
    """
    from torchvision.transforms.v2.functional import rgb_to_grayscale  # here, since torchvision takes seconds to import

    factor = max(1.0, NARROWEST / image.shape[-1])
    if factor > 1:
        size = [round(factor * side) for side in image.shape[-2:]]
        image = F.interpolate(image[None].float(), size, mode="bilinear").round().to(torch.uint8)[0]
    grey = DIMMED * rgb_to_grayscale(image.cpu(), num_output_channels=3)
    return torch.cat([_panel(grey, name, map_.cpu(), share) for name, map_ in maps.items()], dim=2)


def _panel(grey: Tensor, name: str, map_hw: Tensor, share: tuple[float, float]) -> Tensor:
    height, width = map_hw.shape
    seen = map_hw[: max(1, round(height * share[0])), : max(1, round(width * share[1]))]
    large = F.interpolate(seen[None, None], grey.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    least, most = min(0.0, large.min().item()), large.max().item()
    level = ((large - least) / max(most - least, 1e-12)).sqrt()
    opacity = OPACITY[0] + (OPACITY[1] - OPACITY[0]) * level
    heat = ((1 - opacity) * grey + opacity * _colours(level)).round().to(torch.uint8)
    ends = ("0", f"{most / map_hw.mean().item():.3g} times the mean") if least == 0 else ("least", "most")
    return torch.cat([heat, _caption(name, ends, grey.shape[-1])], dim=1)


def _colours(level: Tensor) -> Tensor:
    """(3, h, w) in 0 to 255 of levels (h, w) in 0 to 1."""
    table = torch.tensor(CIVIDIS, dtype=torch.float32)
    place = level * (len(table) - 1)
    below = place.floor().clamp(max=len(table) - 2)
    rest = (place - below)[..., None]
    colours = (1 - rest) * table[below.long()] + rest * table[below.long() + 1]
    return colours.movedim(-1, 0)


def _caption(name: str, ends: tuple[str, str], width: int) -> Tensor:
    """A strip with the block's name, cut at its beginning where it is too long, and the scale of colours."""
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

    font = text_font((width, width))
    line = round(font.getbbox("Ag")[3]) + 6
    strip = Image.new("RGB", (width, 2 * line), "white")
    pen = ImageDraw.Draw(strip)
    while pen.textlength(name, font=font) > width - 8 and len(name) > 4:
        name = "..." + name[4:]
    pen.text((4, 2), name, font=font, fill="black")
    left, right = (round(pen.textlength(end, font=font)) for end in ends)
    pen.text((4, line + 1), ends[0], font=font, fill="black")
    pen.text((width - 4 - right, line + 1), ends[1], font=font, fill="black")
    bar = max(1, width - 16 - left - right)
    colours = _colours(torch.linspace(0, 1, bar)[None].expand(line - 8, bar).sqrt()).round().to(torch.uint8)
    strip.paste(to_pil_image(colours), (8 + left, line + 4))
    return pil_to_tensor(strip)
