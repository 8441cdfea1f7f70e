"""Settings: flat names and parts, what a task refuses, and the files that hold them."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

from gcnet.errors import SettingsError
from gcnet.recipes import Settings
from gcnet.tasks.parts import Optimisation
from gcnet.tasks.settings import all_fields, changed, flat, from_json, to_json

# As version one wrote it, for a run of its task "segment".
FIRST = {
    "data": "discs", "task": "segment", "model": "maskrcnn_resnet18_fpn", "weights": None, "block": "gc",
    "stages": ["c4"], "at": None, "where": "0,1", "position": None, "block_options": {"reduction": 4}, "deform": None,
    "detector_options": {"fpn_channels": 16}, "epochs": 2, "batch_size": 2, "image_size": 64, "scales": [48, 64],
    "photometric": False, "strict": False, "accumulate": 1, "optimizer": "sgd", "lr": 0.01, "weight_decay": 0.0001,
    "schedule": "steps", "warmup_epochs": 1.0, "warmup_steps": 2, "label_smoothing": 0.0, "clip_norm": 35.0,
    "block_lr": 1.0, "ema": None, "mixup": 0.0, "seed": 0, "devices": 1, "nodes": 1, "save_every": 0, "workers": 0,
    "precision": "32-true", "channels_last": True, "cache": False, "name": "run", "runs": "runs",
}  # fmt: skip


def test_a_flat_name_goes_to_the_part_that_has_it():
    settings = Settings(data="d", block="gc", lr=0.5, mixup=0.2, seed=3)
    assert (settings.data.path, settings.block.name, settings.optimisation.lr) == ("d", "gc", 0.5)
    assert (settings.own.mixup, settings.run.seed, str(settings.folder)) == (0.2, 3, "runs/run")
    assert settings == Settings(data="d", block="gc", optimisation=Optimisation(lr=0.5), mixup=0.2, seed=3)


def test_replace_changes_what_is_named_and_nothing_else():
    settings = Settings(data="d", block="gc", stages=["c4"], image_size=32)
    other = replace(settings, data="e", block="se")
    assert changed(settings, other) == ["data: d -> e", "block: gc -> se"]
    assert (other.data.image_size, other.block.stages) == (32, ("c4",))
    assert replace(other, data="d", block="gc") == settings
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"colour": 1}, "colour=1: there is no such setting; those of task='classify' are data, image_size,"),
        ({"task": "segment"}, "'instances' finds objects and their masks, as it did; 'semantic'"),
        ({"scales": (640,)}, r"scales=\(640,\) does nothing for task='classify'; leave it out"),
        ({"deform": ("c5",)}, r"deform=\('c5',\) does nothing for task='classify'"),
        ({"task": "scenes", "mixup": 0.2}, "mixup=0.2 does nothing for task='scenes'"),
        ({"optimisation": 3}, "optimisation=3: there is no such setting"),
        ({"block": Optimisation()}, "does not go with task='classify', whose block is BlockSettings"),
        ({"clip_norm": "1"}, "clip_norm='1': allowed are numbers from 0"),
        ({"recipe": "1x"}, "recipe='1x' goes with --task detect or instances"),
    ],
)
def test_what_is_no_setting_of_the_task_is_refused_in_words(given, match):
    with pytest.raises(SettingsError, match=match):
        Settings(**{"data": "d"} | given)


def test_what_another_task_was_told_is_refused_and_what_it_was_not_told_is_forgotten():
    assert replace(Settings(data="d"), task="scenes") == Settings(data="d", task="scenes")
    with pytest.raises(SettingsError, match=r"own=ClassifySettings\(label_smoothing=0.5"):
        replace(Settings(data="d", label_smoothing=0.5), task="scenes")


def test_a_task_has_its_own_defaults():
    settings = Settings(data="d", task="detect", lr=0.1)
    assert (settings.model.name, settings.data.batch_size) == ("fasterrcnn_resnet50_fpn", 2)
    assert settings.optimisation.epochs == 12


def test_every_field_says_what_it_is():
    fields = all_fields()
    assert {"data", "scales", "mixup", "lr", "runs"} < set(fields)
    assert all(one.metadata["help"].endswith((".", "...")) for one in fields.values())


@pytest.mark.parametrize(
    "given", [{"stages": ("c4",), "runs": "x"}, {"task": "instances", "scales": (48, 64), "lr": 1}]
)
def test_what_was_written_is_read_again(given, tmp_path):
    settings = Settings(data="d", **given)
    (tmp_path / "settings.json").write_text(to_json(settings))
    assert json.loads(to_json(settings))["format"] == 2
    assert from_json(tmp_path / "settings.json") == settings


def test_the_flat_file_of_version_one_is_read(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(FIRST))
    settings = from_json(tmp_path / "settings.json")
    assert settings.task == "instances"
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in flat(settings).items()}
    assert said | {"task": "segment", "runs": "runs", "label_smoothing": 0.0, "mixup": 0.0} == FIRST


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"format": 3}', '{"format": 2}', '{"task": "x", "data": "d"}'])
def test_a_file_without_settings_is_refused(text, tmp_path):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(SettingsError, match="does not hold the settings of a run"):
        from_json(tmp_path / "settings.json")
