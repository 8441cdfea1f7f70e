"""Annotated images as a torch dataset: (image, target) as torchvision's detectors take them; bad files are skipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gcnet.data.detection.annotations import Annotated
from gcnet.data.detection.masks import decode_masks
from gcnet.data.detection.transforms import DetectionTransform, Target
from gcnet.data.images import read_image
from gcnet.errors import ImageError


class DetectionItem(NamedTuple):
    """An image and its objects, how many objects the transform dropped; or (image None) why it cannot be used."""

    image: Tensor | None
    target: Target
    index: int
    dropped: int
    error: str | None


class DetectionBatch(NamedTuple):
    """The usable images of a batch, (3, H, W) each, and their targets; (index, reason) of the others."""

    images: list[Tensor]
    targets: list[Target]
    indices: Tensor
    errors: list[tuple[int, str]]
    dropped: int


class DetectionDataset(Dataset[DetectionItem]):
    """Images read from their files with boxes, labels, masks, iscrowd, area and image_id.

    Args:
        images: what `load_detection` found.
        transform: (PIL RGB image, target) -> (float tensor (3, H, W), target).
        masks: decode the masks, too; every object must have one.

    Shape:
        boxes (N, 4) float32, x1, y1, x2, y2 in pixels, inside the image; labels (N,) int64, from 0; masks (N, H, W)
        uint8; iscrowd (N,) int64; area (N,) float32, of the file, in its pixels; image_id an int.
    """

    def __init__(self, images: Sequence[Annotated], transform: DetectionTransform, *, masks: bool = False) -> None:
        self.images = tuple(images)
        self.transform = transform
        self.masks = masks
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> DetectionItem:
        known = self.images[index]
        index = range(len(self))[index]
        try:
            image = _read(known)
        except ImageError as error:
            self.skipped[str(known.path)] = error.reason
            return DetectionItem(None, {}, index, 0, error.reason)
        tensor, target = self.transform(image, self._target(known))
        return DetectionItem(tensor, target, index, len(known.instances) - len(target["labels"]), None)

    def _target(self, known: Annotated) -> Target:
        from torchvision import tv_tensors  # here, since torchvision takes seconds to import

        objects = known.instances
        boxes = torch.tensor([one.box for one in objects], dtype=torch.float32).view(-1, 4)
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(known.height, known.width)),  # type: ignore[call-overload]
            "labels": torch.tensor([one.label for one in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([one.crowd for one in objects], dtype=torch.int64),
            "area": torch.tensor([one.area for one in objects], dtype=torch.float32),
            "image_id": known.image_id,
        }
        if self.masks:
            pixels = decode_masks([one.segmentation for one in objects], known.height, known.width)
            target["masks"] = tv_tensors.Mask(pixels)
        return target


def _read(known: Annotated) -> Image.Image:
    image = read_image(known.path)
    turned = image.size == (known.height, known.width) != (known.width, known.height)
    if turned:  # annotated as it is stored, not as its EXIF orientation turns it
        image = read_image(known.path, upright=False)
    if image.size != (known.width, known.height):
        hint = " (turned by its EXIF orientation?)" if turned else ""
        raise ImageError(
            known.path,
            f"is {image.width} x {image.height}, its annotations are for {known.width} x {known.height}{hint}",
        )
    return image


def collate_detection(items: Sequence[DetectionItem]) -> DetectionBatch:
    """Gather the usable images and list the others; for `DataLoader(collate_fn=collate_detection)`."""
    good = [item for item in items if item.image is not None]
    return DetectionBatch(
        [item.image for item in good if item.image is not None],
        [item.target for item in good],
        torch.tensor([item.index for item in good], dtype=torch.int64),
        [(item.index, item.error or "unreadable") for item in items if item.image is None],
        sum(item.dropped for item in good),
    )
