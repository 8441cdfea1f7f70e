"""The files of the three networks agree with PyTorch, and the table has a line for each; times are not looked at."""

import pytest
import torch
from torchvision.models import resnet

import onnx_latency
from gcnet.exporters.check import distance


def tiny() -> resnet.ResNet:
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5, width_per_group=16)


@pytest.mark.slow
def test_onnx_latency_times_files_that_were_compared():
    models = onnx_latency.networks(tiny)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        plain, blocks, folded = (model(x) for model in models.values())
    assert distance([folded], [blocks]) < 1e-5
    assert distance([blocks], [plain]) > 1e-2
    contents, worst = onnx_latency.files(models, (3, 32, 32), dynamic=False)
    assert 0 < worst < 1e-4
    row = onnx_latency.measure(contents, x, worst=worst, rounds=2, seconds=60)
    lines = onnx_latency.table([{"case": "one size 1x3x32x32", **row}]).split("\n\n")[0].splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert [line.split("|")[2].strip() for line in lines[2:]] == list(models)
    assert [line.split("|")[4].strip() != "" for line in lines[2:]] == [False, True, True]
