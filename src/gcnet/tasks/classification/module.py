"""Image classification: cross entropy with label smoothing and mixup; top-1, top-5, per class, confusion matrix."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchvision.transforms import v2

from gcnet.tasks.step import Metrics, Setup, Task


class ClassifyMetrics(Metrics):
    """Accuracy, top-5 accuracy (top-k with fewer classes), mean loss, report per class, confusion matrix."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.top5 = MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro")
        self.mean_loss = MeanMetric()
        self.seen = False

    def update(self, outputs: Tensor, batch: Any, loss: Tensor) -> None:
        self.confusion.update(outputs, batch.labels)
        self.top5.update(outputs, batch.labels)
        self.mean_loss.update(loss, weight=len(batch.labels))
        self.seen = True

    def compute(self) -> dict[str, Any]:
        if not self.seen:
            return {}
        confusion = self.confusion.compute()
        return {
            "accuracy": (confusion.trace() / confusion.sum()).item(),
            "top5": self.top5.compute().item(),
            "loss": self.mean_loss.compute().item(),
            "per_class": per_class(confusion),
            "confusion": confusion.tolist(),
        }

    def reset(self) -> None:
        for metric in (self.confusion, self.top5, self.mean_loss):
            metric.reset()
        self.seen = False


def per_class(confusion: Tensor) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of images of every class; rows of `confusion` are truth, columns predictions.

    A class without images (predictions) has recall (precision) 0.

    Example:
        >>> import torch
        >>> per_class(torch.tensor([[3, 1], [0, 4]]))[0]
        {'precision': 1.0, 'recall': 0.75, 'f1': 0.8571428571428571, 'images': 4}
    """
    rows = []
    for index, row in enumerate(confusion.tolist()):
        hits, images, predicted = row[index], sum(row), int(confusion[:, index].sum())
        precision, recall = hits / max(1, predicted), hits / max(1, images)
        f1 = 2 * hits / max(1, images + predicted)
        rows.append({"precision": precision, "recall": recall, "f1": f1, "images": images})
    return rows


class ClassifyTask(Task):
    """Cross entropy on image labels.

    Args:
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        mixup: alpha of mixup (arXiv 1710.09412); 0 turns it off.
    """

    def __init__(
        self, model: nn.Module, setup: Setup, *, num_classes: int, label_smoothing: float = 0.1, mixup: float = 0.0
    ) -> None:
        super().__init__(model, ClassifyMetrics(num_classes), setup)
        self.label_smoothing = label_smoothing
        self.mixup = v2.MixUp(alpha=mixup, num_classes=num_classes) if mixup > 0 else None

    @staticmethod
    def plain_loss(outputs: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.labels)

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        return F.cross_entropy(outputs.float(), batch.labels, label_smoothing=self.label_smoothing)

    def indices(self, batch: Any) -> Tensor:
        return batch.indices

    def prepare(self, batch: Any) -> Any:
        if self.mixup is None:
            return batch
        images, labels = self.mixup(batch.images, batch.labels)
        return batch._replace(images=images, labels=labels)

    def note_errors(self, batch: Any) -> None:
        names = self.common.names["train" if self.training else "val"]
        for index, reason in batch.errors:
            self.skipped.setdefault(str(names[index]), reason)
