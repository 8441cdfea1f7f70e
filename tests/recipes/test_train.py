"""train: exactly repeatable and resumable, honest about bad input, and its files say what happened."""

import csv
import errno
import json
import logging
import os
import shutil
import signal
from dataclasses import replace

import lightning
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import load_file

import gcnet
from gcnet.data.loading import eval_loader, train_loader
from gcnet.data.source import open_images, open_photographs
from gcnet.errors import RunError, SettingsError
from gcnet.recipes import Settings, train
from gcnet.recipes.run.training import prepare
from gcnet.tasks import NonFiniteError
from gcnet.tasks.settings import from_json
from gcnet.tasks.step import Task


def _weights(folder, which="last"):
    return torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def _rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def _fails_at(monkeypatch, epoch, batch, error):
    """Let the training step raise once it comes to that batch of that epoch."""
    step = Task.training_step

    def failing(self, data, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise error
        return step(self, data, batch_idx)

    monkeypatch.setattr(Task, "training_step", failing)


def test_a_run_writes_its_files_and_its_best_model(settings, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(settings)
    folder = settings.folder
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.csv",
        "model.safetensors",
        "run.json",
        "settings.json",
        "summary.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no lightning_logs
    assert from_json(folder / "settings.json") == settings
    assert run.summary == json.loads((folder / "summary.json").read_text())
    assert run.summary["status"] == "done"
    assert set(run.summary["best"]) == {"accuracy", "top5", "loss"}
    assert (run.summary["epochs"], run.summary["skipped_images"]) == (2, 0)
    rows = _rows(folder)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    assert float(rows[run.summary["best_epoch"] - 1]["val_accuracy"]) == run.summary["best"]["accuracy"]
    about = json.loads((folder / "run.json").read_text())
    assert {"command", "started", "seed", "data", "versions", "hardware", "resumed"} == set(about)
    loaded = gcnet.load_checkpoint(run.weights)
    assert loaded.classes == ["blue", "red"]
    assert loaded.preprocessing["size"] == [32, 32]
    best = _weights(folder, "best")
    assert all(torch.equal(value, best[f"model.{key}"]) for key, value in loaded.model.state_dict().items())
    assert capsys.readouterr() == ("", "")  # quiet when not at a terminal
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR


def test_one_batch_overfits(settings, photos, tmp_path):
    small = tmp_path / "small"
    for split in ("train", "val"):
        for name in ("red", "blue"):
            (small / split / name).mkdir(parents=True)
            for index in range(2):
                shutil.copy(photos / "train" / name / f"{index}.png", small / split / name)
    run = train(replace(settings, data=str(small), epochs=14, lr=5e-3, schedule="constant", label_smoothing=0.0))
    rows = _rows(run.folder)
    assert float(rows[-1]["train_loss"]) < 0.1 < float(rows[0]["train_loss"])
    assert run.summary["best"]["accuracy"] == 1.0


@pytest.mark.parametrize("extra", [{}, {"ema": 0.5, "mixup": 0.4, "optimizer": "sgd", "lr": 0.01}])
def test_an_interrupted_run_resumes_to_exactly_the_same_weights(changed, extra, monkeypatch):
    whole = changed(name="whole", epochs=3, **extra)
    cut = changed(name="cut", epochs=3, **extra)
    train(whole)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        _fails_at(patch, 1, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert signal.getsignal(signal.SIGINT) is handler
    summary = json.loads((cut.folder / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("interrupted", 1)
    torch.randn(17)  # what happens in between does not matter
    resumed = train(cut, resume=True)
    assert (resumed.summary["status"], resumed.summary["epochs"]) == ("done", 3)
    assert _equal(_weights(cut.folder), _weights(whole.folder))
    assert _equal(load_file(cut.folder / "model.safetensors"), load_file(whole.folder / "model.safetensors"))
    ours, theirs = ((run / "metrics.csv").read_text().splitlines() for run in (cut.folder, whole.folder))
    assert [line.rpartition(",")[0] for line in ours] == [line.rpartition(",")[0] for line in theirs]
    assert len(json.loads((cut.folder / "run.json").read_text())["resumed"]) == 1


def test_a_run_interrupted_before_its_first_checkpoint_starts_again(changed, monkeypatch):
    cut, whole = changed(name="cut", epochs=1), changed(name="whole", epochs=1)
    with monkeypatch.context() as patch:
        _fails_at(patch, 0, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    train(cut, resume=True)
    train(whole)
    assert _equal(_weights(cut.folder), _weights(whole.folder))


def test_workers_and_the_cache_do_not_change_the_result(changed):
    train(changed(name="a"))
    train(changed(name="b", workers=1, cache=True))
    assert _equal(_weights(changed(name="a").folder), _weights(changed(name="b").folder))


def test_another_seed_gives_other_weights(changed):
    train(changed(name="a", epochs=1))
    train(changed(name="b", epochs=1, seed=1))
    assert not _equal(_weights(changed(name="a").folder), _weights(changed(name="b").folder))


def test_the_order_and_the_augmentation_of_an_epoch_depend_on_seed_and_epoch_alone(photos):
    preprocessing = {
        "size": [16, 16], "resize": 18, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3,
        "channel_order": "RGB",
    }  # fmt: skip

    def epoch(number, draws=0, seed=0):
        source = open_images(open_photographs(str(photos)), preprocessing, seed=seed)
        loader = train_loader(source, batch_size=4, workers=0, seed=seed)
        torch.rand(draws)
        loader.sampler.set_epoch(number)
        batches = list(loader)
        return torch.cat([b.indices for b in batches]).tolist(), torch.cat([b.images for b in batches])

    order, images = epoch(1)
    again, same_images = epoch(1, draws=100)
    assert order == again
    assert torch.equal(images, same_images)
    assert epoch(2)[0] != order
    assert epoch(1, seed=5)[0] != order
    assert sorted(order) == list(range(12))


def test_evaluation_reads_every_image_once_in_order(photos):
    preprocessing = gcnet.models.preprocessing.IMAGENET
    source = open_images(open_photographs(str(photos)), preprocessing)
    assert torch.cat([b.indices for b in eval_loader(source, "val", batch_size=3)]).tolist() == [0, 1, 2, 3]


def test_epochs_may_grow_and_a_finished_run_is_left_alone(changed):
    run = train(changed(epochs=1))
    before = (run.folder / "run.json").read_text()
    assert train(changed(epochs=1), resume=True).summary == run.summary
    assert (run.folder / "run.json").read_text() == before
    assert train(changed(epochs=2), resume=True).summary["epochs"] == 2


def test_a_changed_setting_is_named_on_resume(changed):
    train(changed(epochs=1))
    with pytest.raises(RunError, match=r"other settings \(lr: 0\.001 -> 0\.1; seed: 0 -> 3\): only epochs may grow"):
        train(changed(epochs=2, lr=0.1, seed=3), resume=True)
    with pytest.raises(RunError, match=r"no run to resume"):
        train(changed(name="other"), resume=True)


def test_changed_data_are_noticed_on_resume(changed, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    train(changed(data=str(data), epochs=1))
    shutil.copy(data / "train" / "red" / "0.png", data / "train" / "red" / "new.png")
    with pytest.raises(RunError, match=r"the data of .* changed since the run began"):
        train(changed(data=str(data), epochs=2), resume=True)


def test_one_cycle_cannot_be_made_longer(changed):
    train(changed(epochs=1, schedule="one_cycle"))
    with pytest.raises(RunError, match=r"epochs: 1 -> 2\): one_cycle is planned for its epochs"):
        train(changed(epochs=2, schedule="one_cycle"), resume=True)


def test_a_folder_that_holds_something_is_refused_and_kept(settings):
    settings.folder.mkdir()
    (settings.folder / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        train(settings)
    (settings.folder / "settings.json").write_text("{}")
    with pytest.raises(RunError, match="holds a run that is interrupted; go on with it by `gcnet train --resume"):
        train(settings)
    assert (settings.folder / "mine.txt").read_text() == "precious"


def test_clipping_bounds_the_step_over_all_weights(changed):
    plain = {"optimizer": "sgd", "lr": 1.0, "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0}
    clipped = changed(**plain, clip_norm=1e-6, epochs=1)
    train(clipped)
    lightning.seed_everything(0, verbose=False)
    start = dict(prepare(clipped)[0].named_parameters())
    end = _weights(clipped.folder)
    moved = sum((end[f"model.{name}"] - value).square().sum() for name, value in start.items()).sqrt().item()
    # three steps of Nesterov's momentum 0.9, each gradient of norm 1e-6 at most; float32 rounds the rest
    assert 0 < moved < 3 * 1e-6 * (1 + 1.9 + 2.71)


def test_more_devices_than_there_are_is_an_error_in_words(changed, monkeypatch):
    def refuse(*_, **__):
        raise MisconfigurationException("You requested gpu: [0, 1] but your machine only has: [0]")

    monkeypatch.setattr(lightning, "Trainer", refuse)
    with pytest.raises(RunError, match="devices=2, precision='32-true': You requested gpu"):
        train(changed(devices=2))


def test_a_loss_that_is_not_a_number_stops_with_step_and_files_and_keeps_the_last_checkpoint(settings, monkeypatch):
    loss = Task.loss

    def broken(self, outputs, batch):
        good = type(self).plain_loss(outputs, batch)
        return good * float("nan") if (self.current_epoch, self.global_step) == (1, 4) else good

    assert loss is not broken
    monkeypatch.setattr("gcnet.tasks.classification.module.ClassifyTask.loss", broken)
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 4 \(epoch 2\); the batch: .*\.png.*\.png") as caught:
        train(settings)
    assert str(caught.value).count(".png") == 4
    kept = _weights(settings.folder)
    assert all(value.isfinite().all() for value in kept.values())
    summary = json.loads((settings.folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert "loss is nan at step 4" in summary["reason"]
    assert not (settings.folder / "model.safetensors").exists()


def test_gradients_that_are_infinite_stop_before_they_reach_the_weights(settings, monkeypatch):
    def steep(self, outputs, batch):
        loss = type(self).plain_loss(outputs, batch)
        if self.global_step == 3:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr("gcnet.tasks.classification.module.ClassifyTask.loss", steep)
    with pytest.raises(NonFiniteError, match=r"norm of the gradients is (nan|inf) at step 3"):
        train(settings)


def test_a_full_disk_leaves_the_older_checkpoint_whole(settings, monkeypatch):
    save = torch.save
    calls = []

    def full_the_second_time(content, file):
        calls.append(1)
        save(content, file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("gcnet.tasks.run_files.torch.save", full_the_second_time)
        with pytest.raises(OSError, match=r"last\.ckpt: the disk is full; the older file is intact"):
            train(settings)
    assert len(calls) == 2
    assert len(_weights(settings.folder)) > 0
    assert sorted(path.name for path in (settings.folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert train(settings, resume=True).summary["status"] == "done"


def test_bad_images_are_skipped_counted_and_named(changed, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "train" / "red" / "empty.png").write_bytes(b"")
    (data / "train" / "blue" / "text.png").write_bytes(b"no image")
    whole = (data / "val" / "red" / "0.png").read_bytes()
    (data / "val" / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    for workers in (0, 1):
        run = train(changed(data=str(data), name=f"workers{workers}", workers=workers, batch_size=7, epochs=1))
        assert run.summary["skipped_images"] == 3
        assert {path.rpartition(os.sep)[2] for path in run.summary["skipped"]} == {"empty.png", "text.png", "cut.png"}


def test_a_batch_without_a_readable_image_is_passed_over(changed, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    for path in sorted((data / "train").rglob("*.png"))[:10]:
        path.write_bytes(b"")
    run = train(changed(data=str(data), batch_size=2))
    assert (run.summary["status"], run.summary["skipped_images"]) == ("done", 10)


def test_scenes_train_by_the_same_path(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setattr("gcnet.scenes.source.SCENE_COUNTS", {"train": 64, "val": 16, "test": 16})
    settings = Settings(
        task="scenes", data="cue", model="scenes", block="gc", schedule="one_cycle", epochs=1, runs=tmp_path
    )
    run = train(settings)
    assert set(run.summary["best"]) == {"balanced_accuracy", "item_accuracy", "loss"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"task": "detectify"}, "task='detectify': allowed are 'classify', 'detect', 'instances', 'scenes'"),
        ({"epochs": 0}, "epochs=0: allowed are whole numbers from 1"),
        ({"seed": True}, "seed=True: allowed are whole numbers from 0"),
        ({"lr": 0.0}, "lr=0.0: allowed are numbers above 0"),
        ({"lr": float("nan")}, "lr=nan: allowed are numbers above 0"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0: allowed are numbers from 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: allowed"),
        ({"ema": 1.0}, "ema=1.0: allowed are numbers between 0 and 1"),
        ({"image_size": 4}, "image_size=4: allowed"),
        ({"name": "../elsewhere"}, "name='../elsewhere': allowed are names of folders inside runs="),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(changed, changes, match):
    with pytest.raises(SettingsError, match=match):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"model": "resnet5"}, ValueError, "is no model that gcnet"),
        ({"block": None}, TypeError, "stages, reduction given without block"),
        ({"data": "nowhere"}, FileNotFoundError, "nowhere does not exist"),
        ({"weights": "nowhere.pth"}, FileNotFoundError, "there is no file nowhere.pth"),
        ({"task": "scenes", "data": "cue"}, SettingsError, "does not fit task='scenes'"),
    ],
)
def test_a_mistake_leaves_no_folder_behind(changed, changes, error, match):
    wrong = changed(**changes)
    with pytest.raises(error, match=match):
        train(wrong)
    assert not wrong.folder.exists()
