"""evaluate: the figures of a run or a file, on the data of the run or on other data."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import gcnet
from gcnet.data import DataError
from gcnet.data.classification.datasets import ImageDataset
from gcnet.data.classification.folders import load_classification
from gcnet.data.classification.transforms import eval_transform
from gcnet.errors import RunError, SettingsError
from gcnet.recipes import Settings, evaluate, train
from gcnet.surgery import record


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model of two classes with random weights, in the order red, blue: not the order of the alphabet."""
    torch.manual_seed(1)
    model = gcnet.create_model("timm/test_resnet", num_classes=2)
    record.set_classes(model, ["red", "blue"])
    record.set_preprocessing(model, record.preprocessing(model) | {"size": [32, 32], "resize": 36})
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    gcnet.save_checkpoint(model, path)
    return path


def _by_hand(weights, data):
    """Right answers counted image by image."""
    loaded = gcnet.load_checkpoint(weights)
    samples = load_classification(data, classes=loaded.classes).test
    images = ImageDataset(samples, eval_transform(loaded.preprocessing))
    with torch.no_grad():
        guesses = [loaded.model(images[index].image[None]).argmax().item() for index in range(len(samples))]
    return samples, guesses


def test_a_run_is_measured_on_its_own_test_part_and_the_figures_are_kept(settings):
    run = train(replace(settings, epochs=1))
    figures = evaluate(run.folder)
    assert json.loads((run.folder / "evaluation.json").read_text()) == figures
    assert (figures["split"], figures["images"], figures["skipped"]) == ("test", 4, {})
    assert evaluate(run.folder, split="val")["accuracy"] == run.summary["best"]["accuracy"]


def test_the_figures_are_those_of_counting_one_image_at_a_time(weights, photos):
    figures = evaluate(weights, data=str(photos))
    samples, guesses = _by_hand(weights, photos)
    right = [guess == sample.label for guess, sample in zip(guesses, samples, strict=True)]
    assert figures["accuracy"] == pytest.approx(sum(right) / len(right))
    assert [row["class"] for row in figures["per_class"]] == ["red", "blue"]
    assert [row["images"] for row in figures["per_class"]] == [2, 2]
    confusion = [[0, 0], [0, 0]]
    for sample, guess in zip(samples, guesses, strict=True):
        confusion[sample.label][guess] += 1
    assert figures["confusion"] == confusion
    assert figures["top5"] == 1.0


def test_unreadable_images_are_named_and_left_out(weights, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "test" / "red" / "0.png").write_bytes(b"")
    figures = evaluate(weights, data=str(data))
    assert figures["images"] == 3
    assert list(figures["skipped"]) == [str(data / "test" / "red" / "0.png")]
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"none of the 4 images in test of .* can be read"):
        evaluate(weights, data=str(data))


def test_what_cannot_be_measured_is_said(weights, photos, tmp_path, settings):
    with pytest.raises(SettingsError, match="which does not say what data to use"):
        evaluate(weights)
    with pytest.raises(SettingsError, match="split='exam': allowed are 'train', 'val', 'test'"):
        evaluate(weights, data=str(photos), split="exam")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        evaluate(tmp_path / "no.safetensors", data=str(photos))
    with pytest.raises(RunError, match="holds no finished run"):
        evaluate(tmp_path, data=str(photos))
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(RunError, match="finish it by `gcnet train --resume"):
        evaluate(tmp_path, data=str(photos))


def test_a_part_that_the_data_lack_and_a_class_that_the_model_lacks(weights, photos, tmp_path):
    shutil.copytree(photos / "train", tmp_path / "data")
    with pytest.raises(RunError, match=r"split='test': .* has only train, val"):
        evaluate(weights, data=str(tmp_path / "data"))
    shutil.copytree(tmp_path / "data" / "red", tmp_path / "data" / "green")
    with pytest.raises(DataError, match="green"):
        evaluate(weights, data=str(tmp_path / "data"), split="val")


def test_scenes_are_measured_on_unseen_items(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setattr("gcnet.scenes.source.SCENE_COUNTS", {"train": 32, "val": 16, "test": 24})
    model = gcnet.create_model("scenes", num_classes=6, block="se")
    gcnet.save_checkpoint(model, tmp_path / "m.safetensors")
    figures = evaluate(tmp_path / "m.safetensors", data="mirror", settings=Settings(data="mirror", task="scenes"))
    assert figures["images"] == 24
    assert 0 <= figures["balanced_accuracy"] <= 1
    assert set(figures) == {"weights", "data", "split", "balanced_accuracy", "item_accuracy", "loss", "images"}
