"""predict: every readable file gets its class, every other one its reason."""

import csv
import json
import shutil

import pytest
import torch

import gcnet
from gcnet.data import read_image
from gcnet.data.transforms import eval_transform
from gcnet.recipes import predict
from gcnet.recipes.predict import find_images
from gcnet.recipes.settings import SettingsError
from gcnet.rewrites import record


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    model = gcnet.create_model("timm/test_resnet", num_classes=7)
    record.set_classes(model, [f"class {index}" for index in range(7)])
    record.set_preprocessing(model, record.preprocessing(model) | {"size": [32, 32], "resize": 36})
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    gcnet.save_checkpoint(model, path)
    return path


def test_classes_and_scores_are_those_of_the_model(weights, photos):
    path = photos / "test" / "red" / "0.png"
    (entry,) = predict(weights, path)
    loaded = gcnet.load_checkpoint(weights)
    with torch.no_grad():
        scores = loaded.model(eval_transform(loaded.preprocessing)(read_image(path))[None]).softmax(1)[0]
    assert entry["class"] == loaded.classes[scores.argmax()]
    assert entry["score"] == pytest.approx(scores.max().item(), rel=1e-4)
    assert [row["class"] for row in entry["top"]] == [loaded.classes[i] for i in scores.topk(5).indices]
    assert (entry["path"], entry["error"]) == (str(path), None)


def test_folders_are_searched_and_broken_files_do_not_stop_the_others(weights, photos, tmp_path):
    shutil.copytree(photos / "test", tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("no image by its name")
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG")
    results = predict(weights, [tmp_path / "in", tmp_path / "absent.png"], out=tmp_path / "out")
    assert len(results) == 6
    bad = [entry for entry in results if entry["error"]]
    assert [entry["path"].rpartition("/")[2] for entry in bad] == ["broken.png", "absent.png"]
    assert all(entry["class"] is entry["score"] is None for entry in bad)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == results
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [entry["path"] for entry in results]
    assert [bool(row["error"]) for row in rows] == [bool(entry["error"]) for entry in results]


def test_an_image_named_twice_is_done_once(photos):
    path = photos / "test" / "red" / "0.png"
    assert find_images([path, photos / "test" / "red", path]) == [path, path.with_name("1.png")]


def test_nothing_to_do_is_an_error(weights, tmp_path):
    with pytest.raises(SettingsError, match="none given, and none in the folders given"):
        predict(weights, [tmp_path])


def test_a_model_of_scenes_does_not_read_photographs(photos, tmp_path):
    gcnet.save_checkpoint(gcnet.create_model("scenes", num_classes=6), tmp_path / "m.safetensors")
    with pytest.raises(SettingsError, match="does not read photographs"):
        predict(tmp_path / "m.safetensors", photos)
