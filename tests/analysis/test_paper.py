"""The paper's ablations: their rows build, what is derived is derived again, what is told of them says whose it is."""

import pytest
import torch

import gcnet
from gcnet.analysis.published import AXES, NONE, SOURCES
from gcnet.models import create_model
from gcnet.recipes.variants import make_variants
from gcnet.tasks.settings import Settings


@pytest.fixture(scope="module")
def resnet50():
    with torch.device("meta"):
        return create_model("resnet50", num_classes=1000)


@pytest.mark.parametrize("axis", AXES)
def test_every_row_adds_the_parameters_that_are_derived_for_it(resnet50, axis):
    """Which holds the rows' definitions to the paper's as well."""
    plain = sum(parameter.numel() for parameter in resnet50.parameters())
    _, *variants = make_variants(Settings(data="d"), axis=axis)
    assert len(variants) >= 2
    for variant in variants:
        settings = variant.settings
        place = {"stages": settings.block.stages, "where": settings.block.where, "position": settings.block.position}
        model = gcnet.insert(resnet50, settings.block.name, **place, **settings.block.options)
        added = sum(parameter.numel() for parameter in model.parameters()) - plain
        assert (variant.label, added) == (variant.label, variant.published.parameters)
        assert variant.published.parameters_source == "d"


def test_the_single_non_local_block_costs_what_the_paper_has():
    with torch.device("meta"):
        model = create_model("resnet50", num_classes=1000, block="nl", stages=["c4"], subsample="before")
    costs = gcnet.profile(model, (3, 800, 1280))
    assert round((costs.macs - costs.without.macs) / 1e9, 1) == AXES["block"]["nl+1"].published.gmacs


def test_every_figure_carries_its_source():
    for published in (NONE, *(row.published for rows in AXES.values() for row in rows.values())):
        assert published.sources
        assert published.sources <= set(SOURCES), published


def test_gains_from_a_public_source_are_those_of_the_official_tables():
    """github.com/xvjiarui/GCNet, R50-FPN with synchronised norms: 37.2 / 33.8, r16 39.4 / 35.7, r4 39.9 / 36.2."""
    public = {
        (row.published.box_ap, row.published.mask_ap)
        for rows in AXES.values()
        for row in rows.values()
        if row.published.ap_source == "s"
    }
    assert public == {(37.2, 33.8), (39.4, 35.7), (39.9, 36.2)}
