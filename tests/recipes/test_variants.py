"""What a comparison varies, and the folders its runs get."""

import pytest

from gcnet.recipes.settings import Settings
from gcnet.recipes.variants import make_variants

BASE = Settings(data="d", block="gc", stages=("c4",), block_options={"reduction": 8})


def _labels(variants):
    return [variant.label for variant in variants]


def test_blocks_are_compared_with_none_which_drops_place_and_options():
    none, nl, gc = make_variants(BASE, blocks=("nl", "none", "gc"), axis=None, values=None)
    assert (none.label, none.settings.block, none.settings.stages, dict(none.settings.block_options)) == (
        *("none", None, None),
        {},
    )
    assert (nl.settings.block, nl.settings.stages) == ("nl", ("c4",))
    assert (gc.settings.block, gc.settings.block_options) == ("gc", {"reduction": 8})


def test_without_none_the_first_block_is_the_yardstick():
    assert _labels(make_variants(BASE, blocks=("se", "gc"), axis="block", values=None)) == ["se", "gc"]


def test_an_option_gets_its_values_and_keeps_the_others():
    none, four, linear = make_variants(BASE, blocks=(), axis="transform", values=["bottleneck", "linear"])
    assert none.settings.block is None
    assert four.settings.block_options == {"reduction": 8, "transform": "bottleneck"}
    assert (linear.label, linear.folder) == ("transform=linear", "transform-linear")


def test_places_are_arguments_of_insert():
    _, one, three = make_variants(BASE, blocks=(), axis="stages", values=["c4", "c3+c4+c5"])
    assert one.settings.stages == ("c4",)
    assert three.settings.stages == ("c3", "c4", "c5")
    assert three.settings.block_options == {"reduction": 8}
    assert three.folder == "stages-c3+c4+c5"
    assert make_variants(BASE, blocks=(), axis="where", values=["last"])[1].settings.where == "last"


def test_folders_stay_inside_the_comparison():
    for variant in make_variants(BASE, blocks=(), axis="at", values=["../../x", "a/**", "."]):
        assert "/" not in variant.folder
        assert not variant.folder.startswith(".")


def test_what_makes_no_comparison_is_said():
    with pytest.raises(ValueError, match="blocks is empty"):
        make_variants(BASE, blocks=(), axis=None, values=None)
    with pytest.raises(ValueError, match="'gc' is there twice"):
        make_variants(BASE, blocks=("gc", "gc"), axis=None, values=None)
    with pytest.raises(ValueError, match="'reduction=4' is there twice"):
        make_variants(BASE, blocks=(), axis="reduction", values=[4, 4])
    with pytest.raises(ValueError, match="axis='reduction' needs values"):
        make_variants(BASE, blocks=(), axis="reduction", values=None)
    with pytest.raises(ValueError, match=r"values=\[4\] needs axis"):
        make_variants(BASE, blocks=("gc",), axis=None, values=[4])
    with pytest.raises(ValueError, match="axis='reduction' varies how a block is put in; name it with block"):
        make_variants(Settings(data="d"), blocks=(), axis="reduction", values=[4])
