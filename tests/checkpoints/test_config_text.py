"""mmdet's config text: data is found, nothing is run."""

import pytest

from gcnet.checkpoints.mmdet.config_text import parse_config


def test_data_is_found():
    text = (
        "norm_cfg = dict(type='BN', requires_grad=True)\n"
        "model = dict(type='MaskRCNN', backbone=dict(norm_cfg=norm_cfg, gcb=dict(ratio=1. / 16.), stages=(False, True)"
        "), neck={'out': [1, -2]})\n"
    )
    model = parse_config(text)["model"]
    assert model["backbone"] == {
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "gcb": {"ratio": 0.0625},
        "stages": (False, True),
    }
    assert model["neck"] == {"out": [1, -2]}


@pytest.mark.parametrize(
    "value",
    ["open(PATH, 'w')", "dict(open(PATH, 'w'))", "[open(PATH, 'w') for _ in (1,)]", "(lambda: 1)()", "9 ** 9 ** 9"],
)
def test_everything_else_is_left_out_and_not_run(tmp_path, value):
    path = tmp_path / "ran"
    text = f"PATH = {str(path)!r}\nbad = {value}\ngood = dict(a=1, b={value})\n"
    assert parse_config(text) == {"PATH": str(path), "good": {"a": 1}}
    assert not path.exists()


@pytest.mark.parametrize("text", [None, 3, "model = dict(", "a\0b", "x = " + "(" * 5000 + ")" * 5000, "x = 1 / 0"])
def test_what_is_no_config_is_empty(text):
    assert parse_config(text) == {}


def test_a_name_assigned_anew_forgets_its_old_value():
    assert parse_config("a = 1\na = f()\nb = dict(a=a)") == {"b": {}}
