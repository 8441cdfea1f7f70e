"""What a comparison varies, and the folders its runs get."""

import pytest

from gcnet.recipes.variants import make_variants
from gcnet.tasks.settings import Settings

BASE = Settings(data="d", block="gc", stages=("c4",), block_options={"reduction": 8})


def _labels(variants):
    return [variant.label for variant in variants]


def test_blocks_are_compared_with_none_which_drops_place_and_options():
    none, nl, gc = make_variants(BASE, blocks=("nl", "none", "gc"), axis=None, values=None)
    assert (none.label, none.settings.block.name, none.settings.block.stages, dict(none.settings.block.options)) == (
        *("none", None, None),
        {},
    )
    assert (nl.settings.block.name, nl.settings.block.stages) == ("nl", ("c4",))
    assert (gc.settings.block.name, gc.settings.block.options) == ("gc", {"reduction": 8})


def test_without_none_the_first_block_is_the_yardstick():
    assert _labels(make_variants(BASE, blocks=("se", "gc"), axis="block", values=None)) == ["se", "gc"]


def test_an_option_gets_its_values_and_keeps_the_others():
    none, four, linear = make_variants(BASE, blocks=(), axis="transform", values=["bottleneck", "linear"])
    assert none.settings.block.name is None
    assert four.settings.block.options == {"reduction": 8, "transform": "bottleneck"}
    assert (linear.label, linear.folder) == ("transform=linear", "transform-linear")


def test_places_are_arguments_of_insert():
    _, one, three = make_variants(BASE, blocks=(), axis="stages", values=["c4", "c3+c4+c5"])
    assert one.settings.block.stages == ("c4",)
    assert three.settings.block.stages == ("c3", "c4", "c5")
    assert three.settings.block.options == {"reduction": 8}
    assert three.folder == "stages-c3+c4+c5"
    assert make_variants(BASE, blocks=(), axis="where", values=["last"])[1].settings.block.where == "last"


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
    with pytest.raises(ValueError, match="axis='hidden' needs values"):
        make_variants(BASE, blocks=(), axis="hidden", values=None)
    with pytest.raises(ValueError, match=r"values=\[4\] needs axis"):
        make_variants(BASE, blocks=("gc",), axis=None, values=[4])
    with pytest.raises(ValueError, match="axis='hidden' varies how a block is put in; name it with block"):
        make_variants(Settings(data="d"), axis="hidden", values=[4])
    with pytest.raises(ValueError, match=r"blocks=\['se'\] does not go with axis='reduction'"):
        make_variants(BASE, blocks=("se",), axis="reduction")


def test_an_unknown_axis_or_value_is_told_what_there_is():
    with pytest.raises(
        ValueError, match=r"'colour' is unknown; use one of block, .*pool-fusion .*the options of gc: pool,"
    ):
        make_variants(BASE, axis="colour", values=["red"])
    with pytest.raises(
        ValueError, match=r"values: '4' is none of axis='pool-fusion'; use average\+scale, average\+add"
    ):
        make_variants(BASE, axis="pool-fusion", values=[4])
    with pytest.raises(
        ValueError, match=r"'gcc' is none of axis='block'; use one of none, nl\+1, .* or a block: gc, snl"
    ):
        make_variants(BASE, axis="block", values=["gcc"])
    with pytest.raises(ValueError, match="axis='stages': the scenes model has no stages; use block, bottleneck"):
        make_variants(Settings(data="cue", task="scenes", model="scenes"), axis="stages")


def test_an_axis_of_the_paper_has_its_rows_and_its_block():
    none, four, *_, thirty_two = make_variants(Settings(data="d"), axis="reduction")
    assert (none.label, none.settings.block.name) == ("none", None)
    assert (four.label, four.folder, four.settings.block.name) == ("reduction=4", "reduction-4", "gc")
    assert four.settings.block.options == {"reduction": 4}  # a number, as a run of `--values 4` has it
    assert thirty_two.settings.block.options == {"reduction": 32}
    assert _labels(make_variants(Settings(data="d"), axis="stages", values=["c5", "c2"])) == [
        *("none", "stages=c5", "stages=c2")
    ]
    assert make_variants(Settings(data="d", block="se"), axis="reduction")[1].settings.block.name == "se"


def test_blocks_of_the_paper_stand_where_it_puts_them():
    variants = {variant.label: variant.settings.block for variant in make_variants(Settings(data="d"), axis="block")}
    assert list(variants) == ["none", "nl+1", "snl+1", "gc+1", "gc+all"]
    assert (variants["gc+1"].name, variants["gc+1"].stages, variants["gc+1"].where) == ("gc", ("c4",), "before_last")
    assert variants["nl+1"].options == {"subsample": "before"}
    assert (variants["gc+all"].stages, variants["gc+all"].where) == (None, None)


def test_in_the_scenes_one_block_is_one_spot():
    scenes = Settings(data="cue", task="scenes", model="scenes")
    variants = {variant.label: variant.settings.block for variant in make_variants(scenes, axis="block")}
    assert (variants["nl+1"].at, variants["nl+1"].stages, dict(variants["nl+1"].options)) == ("spots.1", None, {})
    assert variants["gc+all"].at is None


def test_the_paper_s_figures_stand_only_at_its_own_rows():
    def box(settings, **what):
        return [variant.published and variant.published.box_ap for variant in make_variants(settings, **what)]

    plain = Settings(data="d")
    assert box(plain, axis="reduction", values=[4, 2]) == [37.2, 39.9, None]
    assert box(plain, axis="block", values=["se", "gc+all"]) == [None, 39.4]
    assert box(plain) == [None] * 5
    gate = Settings(data="d", block="gc", block_options={"gate": "sigmoid"})
    assert box(gate, axis="pool-fusion", values=["average+scale"]) == [37.2, 38.2]
    for other in (
        Settings(data="d", block="se"),
        Settings(data="d", block="gc", stages=("c4",)),
        Settings(data="d", block="gc", block_options={"norm": False}),
    ):
        assert box(other, axis="reduction", values=[4]) == [37.2, None]
