"""Image classification: cross entropy with label smoothing and mixup (arXiv 1710.09412), as the settings say."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from gcnet.data.source import Source
from gcnet.tasks.classification.metrics import ClassifyMetrics, plain_loss
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Setup, Task


class ClassifyTask(Task):
    """Cross entropy on image labels."""

    plain_loss = staticmethod(plain_loss)

    def __init__(self, model: nn.Module, setup: Setup, source: Source, settings: Settings) -> None:
        own: Any = settings.own
        super().__init__(model, ClassifyMetrics(len(source.classes)), setup)
        self.label_smoothing = own.label_smoothing
        self.mixup = v2.MixUp(alpha=own.mixup, num_classes=len(source.classes)) if own.mixup > 0 else None

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.labels, label_smoothing=self.label_smoothing)

    def prepare(self, batch: Any) -> Any:
        if self.mixup is None:
            return batch
        images, labels = self.mixup(batch.images, batch.labels)
        return batch._replace(images=images, labels=labels)
