"""predict: every readable file gets its class, every other one its reason."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import gcnet
from gcnet.data import read_image
from gcnet.data.classification.transforms import eval_transform
from gcnet.errors import SettingsError
from gcnet.recipes import predict
from gcnet.recipes.inputs import find_images
from gcnet.surgery import record


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


def test_a_classifier_s_attention_is_drawn_beside_its_predictions(photos, tmp_path):
    torch.manual_seed(0)
    model = gcnet.create_model("timm/test_resnet", num_classes=2, block="gc", stages=("c3",), reduction=4)
    for module in model.modules():  # timm starts the last norm of a branch at zero, which leaves nothing to look at
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    record.set_preprocessing(model, record.preprocessing(model) | {"size": [64, 64], "resize": 64})
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    files = [broken, photos / "test" / "red" / "0.png", photos / "test" / "blue" / "0.png"]
    results = predict(tmp_path / "m.safetensors", files, out=tmp_path / "out", show_attention=True)
    assert [entry["error"] is None for entry in results] == [False, True, True]
    pictures = {path.name: Image.open(path).convert("RGB") for path in (tmp_path / "out").glob("*.png")}
    assert set(pictures) == {"0.attention.png", "0-2.attention.png"}
    red, blue = (np.asarray(pictures[name]).reshape(-1, 3).mean(0) for name in ("0.attention.png", "0-2.attention.png"))
    assert not np.array_equal(red, blue)
    assert pictures["0.attention.png"].width == 320


def test_a_model_without_an_attention_map_cannot_show_one(photos, tmp_path):
    model = gcnet.create_model("timm/test_resnet", num_classes=2, block="se", stages=("c3",), reduction=4)
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    with pytest.raises(SettingsError, match=r"no block of this model has an attention map .*gc, snl, nl, dnl have"):
        predict(tmp_path / "m.safetensors", photos / "test", out=tmp_path / "out", show_attention=True)
    with pytest.raises(SettingsError, match="say where they go by out"):
        predict(tmp_path / "m.safetensors", photos / "test", show_attention=True)


def test_nothing_is_written_over_but_what_predict_made_itself(weights, photos, tmp_path):
    image, out = photos / "test" / "red" / "0.png", tmp_path / "out"
    first = predict(weights, image, out=out)
    assert predict(weights, image, out=out) == first
    (out / "predictions.csv").write_text("my own figures\n")
    with pytest.raises(SettingsError, match=r"out'?: predictions.csv would be written over; give another folder"):
        predict(weights, image, out=out)
    assert (out / "predictions.csv").read_text() == "my own figures\n"
