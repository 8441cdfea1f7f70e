import pytest
import torch
from torch import nn
from torchvision.models import resnet

import gcnet
from peers import awaken, fold_batch_norms, freeze_batch_norms, mmcv_block, timm_block, units, with_ours, with_peers


def bottlenecks() -> resnet.ResNet:
    return awaken(resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5, width_per_group=16)).eval()


def basic_blocks() -> resnet.ResNet:
    return awaken(resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], 5)).eval()


@pytest.mark.parametrize("build", [bottlenecks, basic_blocks])
def test_the_independent_fold_changes_nothing_and_leaves_no_norm(build):
    plain, x = build().double(), torch.randn(2, 3, 32, 32).double()
    folded = fold_batch_norms(plain)
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-10, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_freezing_keeps_the_outputs_and_leaves_no_trainable_norm():
    plain, x = bottlenecks().double(), torch.randn(2, 3, 32, 32).double()
    before = plain(x)
    freeze_batch_norms(plain).double()
    torch.testing.assert_close(plain(x), before, rtol=1e-10, atol=1e-10)
    assert not any("bn" in name for name, _ in plain.named_parameters())


@pytest.mark.parametrize(("name", "convert"), [("gc", mmcv_block), ("gc", timm_block), ("se", timm_block)])
def test_a_peers_block_with_our_weights_adds_what_ours_adds(name, convert):
    options = {"gate": "sigmoid"} if name == "se" else {}
    ours = awaken(gcnet.create_block(name, 64, **options).double())
    x = torch.randn(2, 64, 5, 7).double()
    torch.testing.assert_close(convert(ours)(x) - x, ours(x) - x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [bottlenecks, basic_blocks])
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("name", "peer"), [("gc", "mmcv"), ("gc", "timm"), ("se", "timm")])
def test_a_model_with_a_peers_blocks_equals_ours_folded_or_not(build, merge, name, peer):
    plain, x = build().double(), torch.randn(2, 3, 32, 32).double()
    ours = with_ours(plain, name)
    theirs = with_peers(fold_batch_norms(plain) if merge else plain, ours, peer)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-9, atol=1e-9)
    assert (ours(x) - plain(x)).norm() > 0.01 * plain(x).norm(), "the blocks do nothing"
    assert len(units(theirs)) == 4
