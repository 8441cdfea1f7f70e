"""Costs against counts written out by hand; the times of two models whose work differs by a known factor."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gcnet.analysis.cost import count_macs, count_parameters
from gcnet.surgery.timing import time_side_by_side


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer, nn.BatchNorm1d(3))) == 12 + 6


def test_macs_of_a_convolution_and_a_linear_layer_are_their_definition():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(8 * 5 * 5, 7))
    assert count_macs(model, torch.rand(2, 3, 10, 10)) == 2 * (25 * 8 * 27 + 200 * 7)


def test_functional_products_are_counted():
    class Pool(nn.Module):
        def forward(self, x):  # (B, C, P): P x P similarities, then their product with x
            return torch.einsum("bcp,bpq->bcq", x, torch.matmul(x.transpose(1, 2), x).softmax(1))

    assert count_macs(Pool(), torch.rand(2, 5, 11)) == 2 * (11 * 5 * 11 + 5 * 11 * 11)


def test_fused_attention_is_counted():
    class Attend(nn.Module):
        def forward(self, q):
            return F.scaled_dot_product_attention(q, q, q)

    assert count_macs(Attend(), torch.rand(2, 1, 16, 8)) == 2 * (2 * 16 * 16 * 8)


def test_counting_leaves_mode_and_statistics_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval()).train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, torch.rand(1, 3, 4, 4))
    assert model.training
    assert not model[1].training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Repeat(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.times = times
        self.weight = nn.Parameter(torch.eye(256))

    def forward(self, x):
        for _ in range(self.times):
            x = x @ self.weight
        return x


@pytest.mark.parametrize("training", [False, True])
def test_ten_times_the_work_takes_clearly_longer(training):
    timing = time_side_by_side(
        {"one": Repeat(2), "ten": Repeat(20)}, torch.rand(256, 256), training=training, rounds=15
    )
    assert timing["one"].ratio == (1.0, 1.0, 1.0, 15)
    assert timing["ten"].ratio.value > 2
    assert timing["ten"].ratio.low <= timing["ten"].ratio.value <= timing["ten"].ratio.high
    assert timing["ten"].seconds.value > timing["one"].seconds.value > 0


def test_timing_leaves_the_model_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    time_side_by_side({"model": model}, torch.rand(8, 4), training=True, rounds=1)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_budget_ends_the_rounds_after_the_first():
    timing = time_side_by_side({"model": nn.Identity()}, torch.rand(1), rounds=1000, budget=0.0)
    assert timing["model"].seconds.count == 1


def test_several_outputs_are_trained_together():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.a(x), self.b(x)

    assert time_side_by_side({"two": Two()}, torch.rand(2, 4), training=True, rounds=1)["two"].seconds.value > 0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="models is empty"):
        time_side_by_side({}, torch.rand(1))
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        time_side_by_side({"model": nn.Identity()}, torch.rand(1), rounds=0)
