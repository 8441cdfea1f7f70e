"""Profiles: stages and blocks add up to the whole, sums by hand, text, JSON, errors."""

import json

import pytest
import timm
import torch
import torchvision
from torch import nn

import gcnet
from gcnet.analysis.cost import count_parameters

SIZE = (3, 64, 64)


@pytest.fixture(scope="module")
def resnet18():
    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="module")
def with_blocks(resnet18):
    return gcnet.insert(resnet18, "gc", reduction=8)


def test_parts_and_blocks_add_up(resnet18, with_blocks):
    costs = gcnet.profile(with_blocks, SIZE, rounds=0)
    assert costs.params == count_parameters(with_blocks) == sum(part.params for part in costs.stages)
    assert costs.macs == sum(part.macs for part in costs.stages)
    assert sum(part.share for part in costs.stages) == pytest.approx(1)
    assert [part.name for part in costs.stages] == ["stem", "c2", "c3", "c4", "c5", "head"]
    assert [block.name for block in costs.blocks] == list(gcnet.inserted(with_blocks))
    assert {block.kind for block in costs.blocks} == {"GlobalContext"}
    plain = costs.without
    assert plain is not None
    assert plain.params == count_parameters(resnet18)
    assert plain.macs == gcnet.profile(resnet18, SIZE, rounds=0).macs
    assert costs.params - plain.params == sum(block.params for block in costs.blocks)
    assert costs.macs - plain.macs == sum(block.macs for block in costs.blocks)
    assert (costs.latency, costs.ratio, plain.latency) == (None, None, None)


def test_the_parts_of_a_resnet_by_hand(resnet18):
    stem, c2, *_, c5, head = gcnet.profile(resnet18, SIZE, rounds=0).stages
    assert (stem.name, stem.params, stem.macs) == ("stem", 64 * 3 * 49 + 128, 32 * 32 * 64 * 3 * 49)
    assert (c2.params, c2.macs) == (4 * (64 * 64 * 9 + 128), 16 * 16 * 4 * 64 * 64 * 9)
    assert c5.params == count_parameters(resnet18.layer4)
    assert (head.params, head.macs) == (512 * 10 + 10, 512 * 10)


def test_a_block_by_hand(with_blocks):
    block = gcnet.profile(with_blocks, SIZE, rounds=0).blocks[0]
    assert block.name == "layer2.0.context"
    assert block.macs == 2 * 8 * 8 * 128 + 2 * 128 * 16  # pooling on 8 x 8 positions, then the bottleneck
    assert block.params == 128 + 1 + (128 * 16 + 16) + 2 * 16 + (16 * 128 + 128)


def test_a_block_on_a_hook_belongs_to_its_unit_and_can_be_bypassed(resnet18):
    model = gcnet.insert(resnet18, "nl")  # a pre-hook of layer3.1
    costs = gcnet.profile(model, SIZE, rounds=0)
    assert [block.name for block in costs.blocks] == ["layer3.1.context_before"]
    P, C, D = 16, 256, 128
    assert costs.blocks[0].macs == 4 * P * C * D + 2 * P * P * D
    assert costs.without is not None
    assert costs.stages[3].macs - costs.without.stages[3].macs == costs.blocks[0].macs
    assert costs.stages[:3] == tuple(
        part.__class__(part.name, part.params, part.macs, part.macs / costs.macs) for part in costs.without.stages[:3]
    )


def test_layers_between_the_stages_belong_to_the_next_one():
    with torch.device("meta"):
        model = timm.create_model("convnext_atto", num_classes=10)
    parts = {part.name: part for part in gcnet.profile(model, SIZE).stages}
    assert list(parts) == ["stem", "c2", "c3", "c4", "c5", "head"]
    assert parts["stem"].params == count_parameters(model.stem)
    assert parts["c3"].params == count_parameters(model.stages[1])  # its downsampling and its units
    assert parts["head"].params == count_parameters(model.head)


def test_a_model_of_no_family_is_told_by_its_children():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.unused = nn.Linear(5, 5)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = self.body(x * self.scale[:, None, None])
            return self.head(x.mean((2, 3))) @ torch.ones(2, 7)

    parts = {part.name: (part.params, part.macs) for part in gcnet.profile(Net(), (3, 5, 5), rounds=0).stages}
    assert parts == {
        "body": (4 * 27 + 4, 25 * 4 * 27),
        "unused": (30, 0),
        "head": (10, 8),
        "itself": (3, 14),
    }


def test_a_module_that_the_family_never_calls_is_said_so(resnet18):
    model = torchvision.models.resnet18(num_classes=10)
    model.auxiliary = nn.Linear(3, 3)
    parts = {part.name: part for part in gcnet.profile(model, SIZE, rounds=0).stages}
    assert (parts["not called"].params, parts["not called"].macs) == (12, 0)


@pytest.mark.parametrize(
    ("block", "size", "shape"),
    [
        (gcnet.create_block("gc", 16), (16, 4, 4), (1, 16, 4, 4)),
        (gcnet.create_block("gc", 16), [5, 16, 4, 4], (5, 16, 4, 4)),
        (nn.Conv1d(3, 2, 1), (3, 9), (1, 3, 9)),
        (nn.Conv3d(3, 2, 1), (3, 4, 5, 6), (1, 3, 4, 5, 6)),
        (nn.Conv3d(3, 2, 1), (2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
    ],
)
def test_the_batch_may_be_left_out_of_the_size(block, size, shape):
    assert gcnet.profile(block, size, rounds=0).input_size == shape


def test_the_input_has_the_models_dtype_and_memory_format():
    seen = []
    model = nn.Conv2d(3, 4, 3).double().to(memory_format=torch.channels_last)
    model.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    assert gcnet.profile(model, (2, 3, 8, 8), rounds=0).dtype == "float64"
    assert seen[0].dtype == torch.float64
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_both_models_are_timed_in_the_same_rounds():
    model = gcnet.insert(nn.Sequential(nn.Conv2d(3, 8, 1)), "gc", at="0", reduction=2)
    costs = gcnet.profile(model, (3, 8, 8), rounds=7)
    assert costs.latency is not None
    assert costs.without is not None
    assert costs.without.latency is not None
    assert costs.ratio is not None
    assert costs.latency.count == costs.without.latency.count == costs.ratio.count == 7
    assert 0 < costs.latency.low <= costs.latency.value <= costs.latency.high
    assert costs.ratio.value > 1  # a pooling and two layers after a 1x1 layer


def test_a_model_without_blocks_has_no_comparison():
    costs = gcnet.profile(nn.Conv2d(3, 4, 1), (3, 4, 4), rounds=1)
    assert (costs.blocks, costs.without, costs.ratio) == ((), None, None)
    assert costs.latency is not None
    assert costs.latency.count == 1
    assert "with blocks" not in str(costs)


def test_the_model_is_not_changed(with_blocks):
    before = {key: value.clone() for key, value in with_blocks.state_dict().items()}
    with_blocks.train()
    gcnet.profile(with_blocks, SIZE, rounds=1)
    assert with_blocks.training
    assert all(torch.equal(before[key], value) for key, value in with_blocks.state_dict().items())
    assert len(gcnet.inserted(with_blocks)) == 6


def test_text_and_json_hold_the_figures(with_blocks):
    costs = gcnet.profile(with_blocks, SIZE, rounds=1)
    text = str(costs)
    for figure in ("without blocks", "with blocks", "stem", "c5", "layer4.1.context", f"{costs.macs / 1e6:,.3f}"):
        assert figure in text
    assert max(map(len, text.splitlines())) <= 100
    data = json.loads(json.dumps(costs.to_dict()))
    assert data["macs"] == costs.macs
    assert data["input_size"] == [1, *SIZE]
    assert data["latency"]["value"] == costs.latency.value
    assert data["stages"][0] == {"name": "stem", "params": 9536, "macs": 9633792, "share": costs.stages[0].share}
    assert data["without"]["params"] == costs.params - sum(block["params"] for block in data["blocks"])
    assert data["without"]["without"] is None


def test_wrong_arguments_are_named():
    conv = nn.Conv2d(3, 4, 1)
    for size in ((3,), (3, 0, 4), (3, 4.0, 4), "3,4,4", (1, 1, 3, 4, 4), 3):
        with pytest.raises(ValueError, match=r"input_size=.* is no shape of this model's input.*\(C, H, W\)"):
            gcnet.profile(conv, size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the model does not take input_size=\(1, 5, 4, 4\): .*channels"):
        gcnet.profile(conv, (5, 4, 4))
    with pytest.raises(ValueError, match="rounds=-1 must be at least 0"):
        gcnet.profile(conv, (3, 4, 4), rounds=-1)
    with pytest.raises(TypeError, match="model is a str"):
        gcnet.profile("resnet50", (3, 4, 4))  # type: ignore[arg-type]
