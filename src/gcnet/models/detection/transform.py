"""From pictures to the padded batch and back as mmdetection does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from gcnet.models.detection.masks import paste_masks


class RoundedTransform(GeneralizedRCNNTransform):
    """torchvision's transform with mmdetection's sizes (rounded, not cut off) and its way of pasting masks."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Scale the shorter side to `min_size`, unless the longer one would exceed `max_size`."""
        if self.training and self._skip_resize:  # the data's transform has chosen the size
            return image, target
        before = image.shape[-2], image.shape[-1]
        sides = cast(Sequence[int], self.min_size)  # torchvision makes a tuple of a number
        side = self.torch_choice(list(sides)) if self.training else sides[-1]
        scale = min(side / min(before), self.max_size / max(before))
        height, width = (int(length * scale + 0.5) for length in before)
        image = F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], list(before), [height, width])
            if "masks" in target:
                masks = F.interpolate(target["masks"][:, None].float(), size=(height, width))
                target["masks"] = masks[:, 0].byte()
        return image, target

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Boxes and masks in pixels of the pictures, in place."""
        if not self.training:
            for found, size, original in zip(result, image_shapes, original_image_sizes, strict=True):
                found["boxes"] = resize_boxes(found["boxes"], list(size), list(original))
                if "masks" in found:
                    found["masks"] = paste_masks(found["masks"], found["boxes"], original)
        return result
