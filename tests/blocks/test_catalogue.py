"""Blocks by name."""

import pytest
import torch

import gcnet
from gcnet.blocks.catalogue import CATALOGUE, block_options

EVERY = ["gc", "snl", "se", "context", "nl", "cbam", "ge", "eca", "bat", "criss_cross", "dual", "dnl", "ga"]


def test_the_names_are_pinned():
    assert gcnet.list_blocks() == EVERY


@pytest.mark.parametrize("name", EVERY)
def test_every_block_runs_with_its_defaults_and_starts_as_the_identity(name):
    known = CATALOGUE[name]
    block = gcnet.create_block(name, 32, **known.identity)
    for dims in known.dims:
        x = torch.randn(2, 32, *(7,) * dims)
        assert torch.equal(block(x), x)
    assert set(known.identity) <= set(block_options(name))
    assert known.where in ("all", "before_last")
    assert set(known.stages) <= {"c3", "c4", "c5"}


def test_options_pass_through():
    assert gcnet.create_block("gc", 64, reduction=4).add.reduce.out_features == 16


def test_unknown_names_and_options_list_the_known_ones():
    with pytest.raises(ValueError, match="block 'gcc' is unknown; use one of gc, snl, se, context, nl"):
        gcnet.create_block("gcc", 64)
    with pytest.raises(TypeError, match="block 'gc' has no option 'ratio'; it has pool, transform, fusion, hidden"):
        gcnet.create_block("gc", 64, ratio=4)
    with pytest.raises(TypeError, match=r"channels=64.0 is a float; give a positive int"):
        gcnet.create_block("gc", 64.0)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("gc", {}, 1024 + 1 + 2 * 1024 * 64 + 64 + 1024 + 2 * 64),
        ("snl", {}, 1024 + 1 + 1024**2),
        ("se", {}, 2 * 1024 * 64 + 64 + 1024),
        ("nl", {}, 4 * 1024 * 512 + 3 * 512 + 1024),
        ("nl", {"pairwise": "gaussian"}, 2 * 1024 * 512 + 512 + 1024),
        ("nl", {"pairwise": "concatenation"}, 4 * 1024 * 512 + 3 * 512 + 1024 + 1024),
        ("nl", {"norm": "batch"}, 4 * 1024 * 512 + 3 * 512 + 2 * 1024),
    ],
)
def test_parameter_counts(name, options, count):
    assert sum(p.numel() for p in gcnet.create_block(name, 1024, **options).parameters()) == count
