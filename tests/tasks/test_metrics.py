"""The figures of the tasks, against counting by hand."""

import pytest
import torch

from gcnet.data.classification.datasets import Batch
from gcnet.scenes.task import SceneMetrics, SceneTask
from gcnet.tasks.classification.metrics import ClassifyMetrics, per_class


def _batch(labels):
    labels = torch.tensor(labels)
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, torch.arange(len(labels)), [])


def test_classification_figures_over_two_batches():
    metrics = ClassifyMetrics(7)
    scores = torch.full((5, 7), -9.0)
    truth = [0, 1, 2, 3, 6]
    order = [[0], [1], [4, 2], [5, 4, 0, 1, 3], [0, 1, 2, 3, 4, 6]]  # ranks of the truth: 1, 1, 2, 5, 6
    for row, classes in zip(scores, order, strict=True):
        for rank, index in enumerate(classes):
            row[index] = -float(rank)
    metrics.update(scores[:3], _batch(truth[:3]), torch.tensor(1.0))
    metrics.update(scores[3:], _batch(truth[3:]), torch.tensor(6.0))
    figures = metrics.compute()
    assert figures["accuracy"] == pytest.approx(2 / 5)
    assert figures["top5"] == pytest.approx(4 / 5)
    assert figures["loss"] == pytest.approx((3 * 1 + 2 * 6) / 5)
    assert figures["confusion"][2] == [0, 0, 0, 0, 1, 0, 0]
    metrics.reset()
    assert metrics.compute() == {}


def test_top5_of_three_classes_is_everything():
    metrics = ClassifyMetrics(3)
    metrics.update(torch.eye(3), _batch([1, 2, 0]), torch.tensor(0.0))
    assert metrics.compute()["top5"] == 1.0
    assert metrics.compute()["accuracy"] == 0.0


def test_the_report_per_class():
    rows = per_class(torch.tensor([[8, 2, 0], [4, 6, 0], [0, 0, 0]]))
    assert rows[0] == {"precision": 8 / 12, "recall": 0.8, "f1": pytest.approx(16 / 22), "images": 10}
    assert rows[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0}


def test_scene_figures_balance_the_two_classes_and_leave_the_cue_out():
    metrics = SceneMetrics()
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 0, 0] = -1
    labels[0, 0, 1:4] = 1  # 3 marked, 12 not
    marks = torch.zeros(1, 2, 4, 4)
    marks[0, 1, 0, :3] = 1.0  # says marked: the cue's cell, two right ones
    cells = torch.zeros(1, 4, 4, dtype=torch.int64)
    items = torch.zeros(1, 6, 4, 4)
    items[0, 2, 0] = 1.0  # the first row wrong
    metrics.update((marks, items), (torch.zeros(1, 1, 48, 48), labels, cells, torch.zeros(1)), torch.tensor(2.0))
    figures = metrics.compute()
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 12 / 12) / 2)
    assert figures["item_accuracy"] == pytest.approx(12 / 16)
    assert figures["loss"] == 2.0


def test_the_loss_of_scenes_does_not_read_ignored_cells():
    labels = torch.full((1, 4, 4), -1)
    labels[0, 1, 1] = 1
    marks = torch.randn(1, 2, 4, 4)
    items = torch.randn(1, 6, 4, 4)
    cells = torch.randint(0, 6, (1, 4, 4))
    batch = (None, labels, cells, None)
    expected = -marks.log_softmax(1)[0, 1, 1, 1] - items.log_softmax(1).gather(1, cells[:, None]).mean()
    torch.testing.assert_close(SceneTask.plain_loss((marks, items), batch), expected)
