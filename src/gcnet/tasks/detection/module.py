"""Detection and instance segmentation: a detector's own losses.

A batch has images (tensors (3, H, W) of 0..1), targets (boxes, labels, iscrowd, image_id, perhaps masks), indices,
errors and dropped, as `gcnet.data.DetectionBatch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gcnet.data.source import Source
from gcnet.surgery.frames import images_as_given
from gcnet.tasks.detection.metrics import DetectMetrics, Found
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Setup, Task

OBJECT_KEYS = ("boxes", "labels", "masks")


class DetectTask(Task):
    """A detector of `gcnet.models.detection`, or any with torchvision's interface and labels from 0.

    Args:
        model: (images, targets) -> losses in training mode, images -> detections in evaluation mode.
        setup, source, settings: of the run.
        masks: whether masks are trained and evaluated.
    """

    fewest_images: ClassVar[int] = 1

    def __init__(self, model: nn.Module, setup: Setup, source: Source, settings: Settings, *, masks: bool) -> None:
        truth = source.truth.get("val", {"images": [], "annotations": [], "categories": []})
        super().__init__(model, DetectMetrics(truth, masks=masks), setup)

    def forward(self, images: list[Tensor]) -> list[Found]:
        return self.model(list(images))

    def batch_loss(self, batch: Any) -> Tensor:
        with images_as_given(self.model):
            losses = self.model(list(batch.images), [trainable(target) for target in batch.targets])
        size = len(batch.images)
        for name, value in losses.items():
            self.log(f"train_{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        dropped = torch.tensor(float(batch.dropped), device=self.device)
        self.log(
            "dropped_boxes", dropped, on_step=False, on_epoch=True, reduce_fx="sum", batch_size=size, sync_dist=True
        )
        return torch.stack([value.float() for value in losses.values()]).sum()


def trainable(target: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a detector is trained on: the objects that are no crowds."""
    single = target["iscrowd"] == 0
    return {key: target[key][single] for key in OBJECT_KEYS if key in target}
