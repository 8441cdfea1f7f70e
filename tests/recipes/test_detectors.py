"""Training, evaluating and running a detector: files, exact resuming inside an epoch, settings, pictures, JSON."""

import json
import pickle

import pytest
import torch
from PIL import Image

import gcnet
from gcnet import load_checkpoint
from gcnet.errors import SettingsError
from gcnet.recipes import evaluate, predict, train
from gcnet.recipes.run.training import prepare
from gcnet.tasks.detection.module import DetectTask
from gcnet.tasks.detection.recipe import SettingsWarning, detection_settings
from gcnet.tasks.settings import Settings, from_json
from tests.recipes.detection import TINY, tiny_settings, write_discs


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def run(discs, tmp_path_factory):
    """Two epochs, with a checkpoint after every step."""
    return train(tiny_settings(discs, tmp_path_factory.mktemp("runs"), save_every=1), progress=False)


def weights(run):
    return load_checkpoint(run.weights).model.state_dict()


def test_a_run_writes_its_model_figures_and_losses(run, discs):
    assert run.summary["status"] == "done"
    assert {"box_AP", "mask_AP", "box_AP50", "mask_AR100"} <= set(run.summary["best"])
    header, *rows = (run.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 2
    assert {"train_loss", "train_loss_mask", "train_loss_classifier", "dropped_boxes", "val_mask_AP"} <= set(
        header.split(",")
    )
    checkpoint = load_checkpoint(run.weights)
    assert checkpoint.classes == ["red", "blue"]
    assert from_json(run.folder / "settings.json").model.options["fpn_channels"] == 16
    found = checkpoint.model([torch.rand(3, 64, 64)])[0]
    assert {"boxes", "labels", "scores", "masks"} <= set(found)


def test_a_run_broken_off_inside_an_epoch_ends_as_one_that_was_not(run, discs, tmp_path, monkeypatch):
    settings = tiny_settings(discs, tmp_path, save_every=1, workers=1)
    calls, loss = [], DetectTask.batch_loss

    def breaking(task, batch):
        calls.append(batch.indices.tolist())
        if len(calls) == 5:  # the second step of the second epoch
            raise RuntimeError("power cut")
        return loss(task, batch)

    monkeypatch.setattr(DetectTask, "batch_loss", breaking)
    with pytest.raises(RuntimeError, match="power cut"):
        train(settings, progress=False)
    resumed = train(settings, resume=True, progress=False)
    assert calls[5] == calls[4]  # no step before it was done again
    assert len(calls) == 7
    whole, parts = weights(run), weights(resumed)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert resumed.summary["best"] == run.summary["best"]


def test_model_and_data_can_be_sent_to_other_processes(discs, tmp_path):
    model, source = pickle.loads(pickle.dumps(prepare(tiny_settings(discs, tmp_path, photometric=True))))
    assert set(source.datasets["train"][0][1]) >= {"boxes", "labels", "masks"}
    assert len(gcnet.inserted(model)) == 2


@pytest.mark.slow
def test_two_processes_train_one_detector(tmp_path):
    """Each sees half of the images; figures are of all validation images, unreadable files of all processes."""
    discs = write_discs(tmp_path / "discs", (("train", 6), ("val", 3)))
    (discs / "val" / "val1.png").write_bytes(b"no image")  # the second process reads it
    options = TINY | {"score_threshold": 0.0, "proposals": [1000, 200]}  # so many that some fit
    result = train(tiny_settings(discs, tmp_path / "runs", devices=2, detector_options=options), progress=False)
    assert torch.load(result.last, weights_only=True)["global_step"] == 2  # six images, two processes, batches of two
    assert list(result.summary["skipped"]) == [str(discs / "val" / "val1.png")]
    trained, fresh = weights(result), prepare(from_json(result.folder / "settings.json"))[0].state_dict()
    assert all(value.isfinite().all() for value in trained.values() if value.is_floating_point())
    assert not torch.equal(trained["roi_heads.mask_head.0.0.weight"], fresh["roi_heads.mask_head.0.0.weight"])
    alone = evaluate(result.folder, split="val")
    assert alone["images"] == 2
    assert alone["box_AP"] > 0
    for name, value in result.summary["best"].items():
        assert alone[name] == pytest.approx(value, rel=1e-4), name


def test_two_batches_added_up_are_one_step_and_half_precision_trains(discs, tmp_path):
    settings = tiny_settings(discs, tmp_path, batch_size=1, accumulate=2, epochs=1, precision="bf16-mixed")
    result = train(settings, progress=False)
    assert torch.load(result.last, weights_only=True)["global_step"] == 3
    assert all(value.isfinite().all() for value in weights(result).values() if value.is_floating_point())


def test_a_detector_without_masks_trains_on_several_scales(discs, tmp_path):
    settings = tiny_settings(
        discs,
        tmp_path,
        task="detect",
        model="retinanet_resnet18_fpn",
        block=None,
        stages=None,
        block_options={},
        detector_options={"base_channels": 8, "fpn_channels": 32},
        scales=(48, 64),
        photometric=True,
        epochs=1,
    )
    result = train(settings, progress=False)
    assert "box_AP" in result.summary["best"]
    assert "mask_AP" not in result.summary["best"]


def test_evaluate_gives_the_figures_of_the_best_epoch_and_writes_them(run, discs):
    result = evaluate(run.folder, split="val")
    assert result["mask_AP"] == pytest.approx(run.summary["best"]["mask_AP"])
    assert result["box_AR100"] == pytest.approx(run.summary["best"]["box_AR100"])
    assert [row["class"] for row in result["per_class"]] == ["red", "blue"]
    assert (result["images"], result["skipped"]) == (2, {})
    assert json.loads((run.folder / "evaluation.json").read_text())["box_AP"] == result["box_AP"]
    assert evaluate(run.weights, data=str(discs), split="train")["images"] == 6
    with pytest.raises(ValueError, match=r"split='test': .* has only train, val"):
        evaluate(run.folder)


def test_predict_draws_every_image_and_writes_its_objects_beside_it(run, discs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    image = discs / "val" / "val0.png"
    results = predict(run.folder, [image, broken], out=tmp_path / "out", threshold=0.0, show_attention=True)
    assert [entry["error"] is None for entry in results] == [True, False]
    assert (results[0]["width"], results[0]["height"]) == (64, 64)
    first = results[0]["objects"][0]
    assert first["class"] in ("red", "blue")
    assert first["mask"]["size"] == [64, 64]
    assert json.loads((tmp_path / "out" / "val0.json").read_text()) == results[0]
    with Image.open(tmp_path / "out" / "val0.png") as drawn, Image.open(image) as original:
        assert drawn.size == (64, 64)
        assert drawn.tobytes() != original.tobytes()
    with Image.open(tmp_path / "out" / "val0.attention.png") as drawn:
        assert drawn.width == 320  # one stage with blocks: one map, enlarged for its caption
    assert not (tmp_path / "out" / "broken.json").exists()
    with pytest.raises(SettingsError, match="say where they go by out"):
        predict(run.folder, image, show_attention=True)
    with pytest.raises(SettingsError, match="threshold=2: allowed are scores from 0 to 1"):
        predict(run.folder, image, threshold=2)
    before = image.read_bytes()
    with pytest.raises(SettingsError, match=r"val0\.png would be written over; give another folder"):
        predict(run.folder, image.parent, out=image.parent)
    assert image.read_bytes() == before


def test_the_published_recipe_scales_its_learning_rate_and_says_so():
    with pytest.warns(SettingsWarning, match=r"0.02 is for 16 images in a step; for 8 it is scaled to 0.01"):
        settings = detection_settings("data", batch_size=2, accumulate=2, devices=2)
    how = settings.optimisation
    assert (how.epochs, how.schedule, how.optimizer, settings.task) == (12, "steps", "sgd", "instances")
    assert how.lr == pytest.approx(0.01)
    assert (
        detection_settings("data", recipe="2x", batch_size=16).optimisation.epochs == 24
    )  # no warning: nothing is scaled
    assert detection_settings("data", task="detect", lr=0.5).optimisation.lr == 0.5
    with pytest.raises(SettingsError, match="recipe='3x': allowed are '1x', '2x'"):
        detection_settings("data", recipe="3x", lr=1.0)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="batch_size=0: allowed are whole numbers from 1"):
        detection_settings("data", batch_size=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mixup": 0.2}, "mixup=0.2 does nothing for task='instances'; leave it out"),
        ({"cache": True}, "cache=True does nothing for task='instances'"),
        ({"scales": ()}, r"scales=\(\): allowed are whole numbers of pixels from 8"),
        ({"scales": (4,)}, r"scales=\(4,\): allowed"),
        ({"accumulate": 0}, "accumulate=0: allowed are whole numbers from 1"),
        ({"save_every": -1}, "save_every=-1: allowed are whole numbers from 0"),
    ],
)
def test_settings_that_do_not_fit_detectors_are_refused(changes, match):
    with pytest.raises(SettingsError, match=match):
        detection_settings("data", lr=1.0, **changes)


def test_what_only_detectors_have_is_refused_for_classifiers():
    with pytest.raises(SettingsError, match="photometric=True does nothing for task='classify'"):
        Settings(data="data", photometric=True)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": "resnet18"}, "model='resnet18' is no detector"),
        ({"task": "detect"}, "model='maskrcnn_resnet18_fpn' is trained on masks; use task='instances'"),
        ({"model": "fasterrcnn_resnet18_fpn", "detector_options": {}}, "has no masks; use task='detect'"),
        ({"detector_options": {"min_size": 3}}, "min_size come from image_size and scales"),
        ({"nodes": 2}, "nodes=2: several machines are started by torchrun or SLURM"),
    ],
)
def test_a_run_that_cannot_begin_says_why(discs, tmp_path, changes, match):
    with pytest.raises(SettingsError, match=match):
        train(tiny_settings(discs, tmp_path, **changes), progress=False)
