"""Image classification: cross entropy with label smoothing and mixup."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from gcnet.tasks.classification.metrics import ClassifyMetrics, plain_loss
from gcnet.tasks.step import Setup, Task


class ClassifyTask(Task):
    """Cross entropy on image labels.

    Args:
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        mixup: alpha of mixup (arXiv 1710.09412); 0 turns it off.
    """

    plain_loss = staticmethod(plain_loss)

    def __init__(
        self, model: nn.Module, setup: Setup, *, num_classes: int, label_smoothing: float = 0.1, mixup: float = 0.0
    ) -> None:
        super().__init__(model, ClassifyMetrics(num_classes), setup)
        self.label_smoothing = label_smoothing
        self.mixup = v2.MixUp(alpha=mixup, num_classes=num_classes) if mixup > 0 else None

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.labels, label_smoothing=self.label_smoothing)

    def prepare(self, batch: Any) -> Any:
        if self.mixup is None:
            return batch
        images, labels = self.mixup(batch.images, batch.labels)
        return batch._replace(images=images, labels=labels)
