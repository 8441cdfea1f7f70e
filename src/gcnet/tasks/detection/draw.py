"""Pictures of what a detector found: masks by torchvision, boxes and their texts by Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Neighbours in the list of objects differ for the colour-blind too (Okabe and Ito 2008, without black).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw(image: Tensor, entry: Mapping[str, Any]) -> Tensor:
    """The image with the objects of its prediction.

    Args:
        image: uint8 (3, H, W).
        entry: has objects: class, score, box (x1, y1, x2, y2) and perhaps mask, as COCO's run lengths.
    """
    from faster_coco_eval import mask as run_lengths  # here, since it is an extra, and attention's pictures need none

    objects = entry["objects"]
    boxes = torch.tensor([one["box"] for one in objects]).view(-1, 4)
    texts = [f"{one['class']} {one['score']:.2f}" for one in objects]
    masks = [torch.from_numpy(run_lengths.decode(one["mask"])).bool() for one in objects if "mask" in one]
    return draw_objects(image, boxes, texts, torch.stack(masks) if masks else None)


def draw_objects(
    image: Tensor, boxes: Tensor, texts: Sequence[str], masks: Tensor | None = None, *, alpha: float = 0.45
) -> Tensor:
    """The image with boxes, a text at each, and masks in the colour of their box; the first ones are on top.

    Args:
        image: uint8 (3, H, W).
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        texts: N lines such as "person 0.98".
        masks: bool (N, H, W).
        alpha: opacity of the masks.

    Returns:
        uint8 (3, H, W).
    """
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image  # here, since it takes seconds
    from torchvision.utils import draw_segmentation_masks

    if not len(boxes):
        return image.clone()
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(boxes))]
    if masks is not None:
        image = draw_segmentation_masks(image, masks.flip(0), alpha=alpha, colors=colours[::-1])  # type: ignore[arg-type]
    picture: Image.Image = to_pil_image(image)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(picture.size) / 200))
    for box, colour in zip(boxes.tolist()[::-1], colours[::-1], strict=True):
        left, top = (max(0, round(value)) for value in box[:2])
        # a box of no whole pixel is drawn as one
        right, bottom = max(round(box[2]) - 1, left), max(round(box[3]) - 1, top)
        pen.rectangle((left, top, right, bottom), outline=colour, width=line)
    font = text_font(picture.size)
    for box, text, colour in zip(boxes.tolist()[::-1], texts[::-1], colours[::-1], strict=True):
        _tag(pen, picture.size, box, text, colour, font)
    return pil_to_tensor(picture)


def text_font(size: tuple[int, int]) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Letters that can be read in a picture of that size."""
    return ImageFont.load_default(size=max(9, min(32, round(min(size) / 36))))


def _tag(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Sequence[float],
    text: str,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """The text on a ground of its box's colour, above the box or, where there is no room, inside."""
    x0, y0, x1, y1 = pen.textbbox((0, 0), text, font=font)
    width, height = x1 - x0 + 4, y1 - y0 + 4
    left = max(0, min(round(box[0]), size[0] - round(width)))
    above = round(box[1] - height)
    top = above if above >= 0 else max(0, min(round(box[1]), size[1] - round(height)))
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    pen.text((left + 2 - x0, top + 2 - y0), text, font=font, fill=ink(colour))


def ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has the higher contrast on that colour (relative luminance of WCAG 2).

    Example:
        >>> ink((240, 228, 66)), ink((0, 114, 178))
        ((0, 0, 0), (255, 255, 255))
    """
    red, green, blue = ((value / 255 + 0.055) ** 2.4 / 1.055**2.4 for value in colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
