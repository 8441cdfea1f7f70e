"""Marking the cells of scenes: cross entropy of the marks, plus that of the items, without which nothing is learnt."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from gcnet.data.source import Source
from gcnet.scenes.draw import IGNORED
from gcnet.tasks.settings import Settings
from gcnet.tasks.step import Setup, Task


def plain_loss(outputs: tuple[Tensor, Tensor], batch: Any) -> Tensor:
    """Of the two decisions for each cell."""
    marks, items = outputs
    _, labels, cells, *_ = batch
    return F.cross_entropy(marks.float(), labels, ignore_index=IGNORED) + F.cross_entropy(items.float(), cells)


class SceneMetrics(nn.Module):
    """Balanced accuracy of the marks (mean recall of marked and unmarked cells), accuracy of the items, mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.confusion = MulticlassConfusionMatrix(2, ignore_index=IGNORED)
        self.items = MeanMetric()
        self.mean_loss = MeanMetric()

    def update(self, outputs: tuple[Tensor, Tensor], batch: Any, loss: Tensor | None = None) -> None:
        marks, items = outputs
        images, labels, cells, *_ = batch
        self.confusion.update(marks, labels)
        self.items.update((items.argmax(1) == cells).float())
        self.mean_loss.update(plain_loss(outputs, batch) if loss is None else loss, weight=len(images))

    def compute(self) -> dict[str, Any]:
        if not self.mean_loss.update_called:
            return {}
        confusion = self.confusion.compute().double()
        recall = confusion.diagonal() / confusion.sum(1).clamp(min=1)
        return {
            "balanced_accuracy": recall.mean().item(),
            "item_accuracy": self.items.compute().item(),
            "loss": self.mean_loss.compute().item(),
        }

    def reset(self) -> None:
        for metric in (self.confusion, self.items, self.mean_loss):
            metric.reset()


class SceneTask(Task):
    """The two decisions for each cell of `gcnet.scenes.net.SceneNet`; a batch is `gcnet.scenes.source.SceneBatch`."""

    plain_loss = staticmethod(plain_loss)

    def __init__(self, model: nn.Module, setup: Setup, source: Source, settings: Settings) -> None:
        super().__init__(model, SceneMetrics(), setup)

    def loss(self, outputs: tuple[Tensor, Tensor], batch: Any) -> Tensor:
        return plain_loss(outputs, batch)
