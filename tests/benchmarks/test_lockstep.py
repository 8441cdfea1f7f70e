"""Networks in step compute what they compute alone, and nothing is timed but them."""

import time

import pytest
import torch
from torch import nn
from torchvision.models import resnet

from lockstep import inference_in_step, parts, training_in_step


def tiny() -> resnet.ResNet:
    torch.manual_seed(0)
    return resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], 5, width_per_group=16).double()


def test_the_parts_one_after_the_other_are_the_network():
    model, x = tiny().eval(), torch.randn(2, 3, 32, 32).double()
    out = x
    for part in parts(model):
        out = part(out)
    assert torch.equal(out, model(x))
    assert len(parts(model)) == 7


def test_every_gradient_is_that_of_a_whole_backward_pass():
    model, x = tiny(), torch.randn(2, 3, 32, 32).double()
    taken = training_in_step({"a": model, "b": tiny()}, x, rounds=1, seconds=60)
    assert [len(values) for values in taken.values()] == [1, 1]
    in_step = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x).square().mean().backward()
    for a, parameter in zip(in_step, model.parameters(), strict=True):
        torch.testing.assert_close(a, parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("timer", [inference_in_step, training_in_step])
def test_a_slower_network_takes_longer_in_every_round(timer):
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.3)
            return x

    slow = tiny()
    slow.layer2[0].relu = Slow()  # three times per unit
    taken = timer({"plain": tiny(), "slow": slow}, torch.randn(2, 3, 32, 32).double(), rounds=2, seconds=60)
    assert all(0.85 < b - a < 3 for a, b in zip(taken["plain"], taken["slow"], strict=True))
