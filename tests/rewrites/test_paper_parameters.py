"""Added parameters of every row of the paper's tables, to the last digit (arXiv 1904.11492, tables 1 to 4)."""

import pytest
import torch
import torchvision
from torch import nn

import gcnet

ROWS = {
    "+1 NL (res4)": ("nl", {}, 2_099_712, 2.100),
    "+1 SNL": ("snl", {"stages": "c4", "where": "before_last"}, 1_049_601, 1.050),
    "+1 GC": ("gc", {"stages": "c4", "where": "before_last"}, 133_313, 0.133),
    "+all GC r16": ("gc", {}, 2_521_741, 2.522),
    "+all GC r4": ("gc", {"reduction": 4}, 10_000_909, 10.001),
    "+all GC r8": ("gc", {"reduction": 8}, 5_014_797, 5.015),
    "+all GC r32": ("gc", {"reduction": 32}, 1_275_213, 1.275),
    "r16 in c3 only": ("gc", {"stages": "c3"}, 135_556, 0.136),
    "r16 in c4 only": ("gc", {"stages": "c4"}, 799_878, 0.800),
    "r16 in c5 only": ("gc", {"stages": "c5"}, 1_586_307, 1.586),
    "SE with norm": ("context", {"pool": "average", "fusion": "scale"}, 2_507_392, 2.507),
    "plain SE": ("se", {}, 2_505_600, 2.506),
    "no bottleneck": ("snl", {}, 19_937_293, 19.937),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def resnet50():
    with torch.device("meta"):
        return torchvision.models.resnet50()


@pytest.mark.parametrize("row", ROWS)
def test_added_parameters_of_resnet50(resnet50, row):
    block, options, exact, millions = ROWS[row]
    added = count(gcnet.insert(resnet50, block, **options)) - count(resnet50)
    assert added == exact
    assert round(added / 1e6, 3) == millions


def test_imagenet_total(resnet50):
    assert round(count(resnet50) / 1e6, 2) == 25.56
    assert round(count(gcnet.insert(resnet50, "gc")) / 1e6, 2) == 28.08


def test_the_counts_are_those_of_the_formulas():
    """The rows again, from the layers' sizes: w_k, two linear layers with biases, a LayerNorm between."""
    units = ((512, 4), (1024, 6), (2048, 3))

    def gc(C: int, r: int) -> int:
        return (C + 1) + 2 * C * (C // r) + (C // r + C) + 2 * (C // r)

    for r in (4, 8, 16, 32):
        assert ROWS[f"+all GC r{r}"][2] == sum(n * gc(C, r) for C, n in units)
    assert ROWS["plain SE"][2] == sum(n * (2 * C * (C // 16) + C // 16 + C) for C, n in units)
    assert ROWS["SE with norm"][2] == sum(n * (gc(C, 16) - C - 1) for C, n in units)
    assert ROWS["no bottleneck"][2] == sum(n * (C * C + C + 1) for C, n in units)
    assert ROWS["+1 NL (res4)"][2] == 4 * 1024 * 512 + 3 * 512 + 1024


@pytest.mark.parametrize(
    ("groups", "width", "reduction", "added"),
    [(1, 64, 16, 4_788_062), (1, 64, 4, 18_961_694), (32, 4, 16, 4_788_062), (32, 4, 4, 18_961_694)],
)
def test_the_published_101_layer_backbones(groups, width, reduction, added):
    """Counts of the context blocks in mmdetection's own R101 and X101-32x4d configurations."""
    with torch.device("meta"):
        bottleneck = torchvision.models.resnet.Bottleneck
        model = torchvision.models.ResNet(bottleneck, [3, 4, 23, 3], groups=groups, width_per_group=width)
    result = gcnet.insert(model, "gc", reduction=reduction)
    assert len(gcnet.inserted(result)) == 30
    assert count(result) - count(model) == added
