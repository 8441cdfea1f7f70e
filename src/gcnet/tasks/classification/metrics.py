"""The figures of classification: top-1, top-5, loss, precision, recall and F1 of every class, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from gcnet.data.source import Source


def plain_loss(outputs: Tensor, batch: Any) -> Tensor:
    """The cross entropy that validation and test report."""
    return F.cross_entropy(outputs.float(), batch.labels)


def measured(source: Source, split: str) -> ClassifyMetrics:
    return ClassifyMetrics(len(source.classes), source.classes)


class ClassifyMetrics(nn.Module):
    """Accuracy, top-5 accuracy (top-k with fewer classes), mean loss, report per class, confusion matrix.

    Args:
        num_classes: of the model.
        names: what the classes are called in the report.
    """

    def __init__(self, num_classes: int, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.names = names
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.top5 = MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro")
        self.mean_loss = MeanMetric()

    def update(self, outputs: Tensor, batch: Any, loss: Tensor | None = None) -> None:
        self.confusion.update(outputs, batch.labels)
        self.top5.update(outputs, batch.labels)
        self.mean_loss.update(plain_loss(outputs, batch) if loss is None else loss, weight=len(batch.labels))

    def compute(self) -> dict[str, Any]:
        if not self.confusion.update_called:
            return {}
        confusion = self.confusion.compute()
        rows: list[dict[str, Any]] = list(per_class(confusion))
        if self.names is not None:
            rows = [{"class": name, **row} for name, row in zip(self.names, rows, strict=True)]
        return {
            "accuracy": (confusion.trace() / confusion.sum()).item(),
            "top5": self.top5.compute().item(),
            "loss": self.mean_loss.compute().item(),
            "per_class": rows,
            "confusion": confusion.tolist(),
        }

    def reset(self) -> None:
        for metric in (self.confusion, self.top5, self.mean_loss):
            metric.reset()


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
