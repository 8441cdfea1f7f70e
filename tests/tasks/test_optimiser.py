"""Parameter groups and schedules."""

import math

import pytest
import torch
from torch import nn

import gcnet
from gcnet.tasks import Optimisation
from gcnet.tasks.optimiser import build_optimiser, factor, parameter_groups


@pytest.fixture(scope="module")
def model():
    return gcnet.create_model("timm/test_resnet", num_classes=3, block="gc", stages=["c5"], reduction=4)


def _names(model, group):
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_every_parameter_is_in_one_group_and_norms_and_biases_do_not_decay(model):
    groups = parameter_groups(model, Optimisation(lr=0.1, weight_decay=0.3, block_lr=5.0))
    names = [_names(model, group) for group in groups]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert set.union(*names) == {name for name, _ in model.named_parameters()}
    for group, members in zip(groups, names, strict=True):
        for name in members:
            parameter = model.get_parameter(name)
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0), name
            assert group["lr"] == pytest.approx(0.5 if ".context" in name else 0.1), name
    assert "fc.weight" in names[1]
    assert "fc.bias" in names[0]


def test_frozen_parameters_and_those_the_model_exempts():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    model[1].weight.requires_grad_(False)
    model.no_weight_decay = lambda: {"0.weight"}
    groups = parameter_groups(model, Optimisation())
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.0, 2)]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimiser_keeps_the_groups(model, name, kind):
    optimizer, _ = build_optimiser(model, Optimisation(optimizer=name, lr=0.1, block_lr=2.0), steps=10, epochs=2)
    assert isinstance(optimizer, kind)
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.1, 0.2}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}


def test_cosine_rises_linearly_over_the_warm_up_and_falls_to_nearly_zero():
    rates = [factor(step, "cosine", 4, 20) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[12] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx((1 + math.cos(math.pi * 15 / 16)) / 2)
    assert factor(25, "cosine", 4, 20) == 0.0


def test_constant_stays_at_its_highest():
    assert [factor(step, "constant", 1, 5) for step in range(5)] == [0.5, 1, 1, 1, 1]


def test_the_warm_up_takes_half_of_a_short_run_at_most(model):
    optimizer, schedule = build_optimiser(model, Optimisation(lr=1.0, warmup_epochs=9), steps=4, epochs=2)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5])


def test_one_cycle_peaks_at_lr_for_every_group(model):
    optimizer, schedule = build_optimiser(
        model, Optimisation(lr=0.1, block_lr=2.0, schedule="one_cycle"), steps=20, epochs=2
    )
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert max(rate[0] for rate in rates) == pytest.approx(0.1, rel=0.02)
    assert max(rate[-1] for rate in rates) == pytest.approx(0.2, rel=0.02)
    assert rates[-1][0] < 0.01
