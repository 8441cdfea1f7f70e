"""Files and runs of version 0.1.0 load, compute what they computed, and are resumed; `make.py` wrote them then."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import gcnet
from gcnet.cli import app
from gcnet.recipes import Settings, compare, evaluate, predict
from tests.v1.synthetic import copy_run, net, outputs, rebuild, some_of, write_objects, write_photos

HERE = Path(__file__).parent
CHECKPOINTS = json.loads((HERE / "checkpoints" / "expected.json").read_text(encoding="utf-8"))
RUNS = sorted(path.parent.name for path in (HERE / "trained").glob("*/expected.json"))


def same(found, told, rel=1e-5):
    """Equal names, shapes and words; numbers equal up to rounding."""
    if isinstance(told, dict):
        assert found.keys() >= told.keys()
        for key in told:
            same(found[key], told[key], rel)
    elif isinstance(told, list | tuple):
        assert len(found) == len(told)
        for ours, theirs in zip(found, told, strict=True):
            same(ours, theirs, rel)
    elif isinstance(told, float):
        assert found == pytest.approx(told, rel=rel, abs=rel)
    else:
        assert found == told


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with the data of the runs; their paths are relative to it."""
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))
    write_objects(Path("objects"))
    return tmp_path


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_gives_the_outputs_it_gave(name, tmp_path):
    told = CHECKPOINTS[name]
    path = HERE / "checkpoints" / f"{name}.safetensors"
    if not path.exists():
        path = rebuild(path.with_suffix(".json"), tmp_path / path.name)
    plain = None if told["net"] is None else net(told["net"])
    loaded = gcnet.load_checkpoint(path, architecture=plain)
    assert not loaded.model.training
    assert [rewrite["rewrite"] for rewrite in loaded.architecture["rewrites"]] == told["rewrites"]
    assert loaded.classes == told["classes"]
    same(outputs(loaded.model, name, told["input"]), told["outputs"])
    gcnet.save_checkpoint(loaded.model, tmp_path / "again.safetensors")  # and is a file of ours again
    again = gcnet.load_checkpoint(tmp_path / "again.safetensors", architecture=plain)
    same(outputs(again.model, name, told["input"]), told["outputs"])


def test_the_tensors_keep_their_names():
    """Whoever reads the file without gcnet finds what was there."""
    path = HERE / "checkpoints" / "fold.safetensors"
    loaded = gcnet.load_checkpoint(path, architecture=net("basic")).model.state_dict()
    with safe_open(path, framework="pt") as file:
        assert set(loaded) == set(file.keys())
        assert all(torch.equal(loaded[name], file.get_tensor(name)) for name in loaded)


@pytest.mark.parametrize("name", [name for name in RUNS if name.endswith("_done")])
def test_a_finished_run_is_evaluated_and_predicts_as_it_did(name, work):
    if name.startswith("scenes"):
        pytest.importorskip("mlxtend")
    told = json.loads((HERE / "trained" / name / "expected.json").read_text(encoding="utf-8"))
    run = copy_run(HERE / "trained" / name, work / "runs" / name)
    same(evaluate(run, split="val"), told["evaluate"], rel=1e-4)
    if "predict" in told:
        images = [Path(entry["path"]) for entry in told["predict"]]
        found = predict(run, images, threshold=0.0)
        for ours, theirs in zip(found, told["predict"], strict=True):
            best = ours.get("objects", [])[:1]
            same(ours | {"objects": best}, theirs, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in RUNS if name.endswith("_cut")])
def test_an_interrupted_run_is_resumed_and_ends_as_it_would_have(name, work):
    if name.startswith("scenes"):
        pytest.importorskip("mlxtend")
    told = json.loads((HERE / "trained" / name / "expected.json").read_text(encoding="utf-8"))
    run = copy_run(HERE / "trained" / name, work / "runs" / name)
    result = CliRunner().invoke(app, ["train", "--resume", str(run)], prog_name="gcnet")
    assert result.exit_code == 0, result.output
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    same(summary, told["summary"], rel=1e-3)
    ours, theirs = (
        [{name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(text)]
        for text in (io.StringIO((run / "metrics.csv").read_text(encoding="utf-8")), io.StringIO(told["metrics"]))
    )
    same(ours, theirs, rel=1e-3)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == told["global_step"]
    weights = {key: value for key, value in last["state_dict"].items() if value.is_floating_point()}
    same(some_of(weights), told["weights"], rel=1e-3)
    assert len(json.loads((run / "run.json").read_text(encoding="utf-8"))["resumed"]) == 1
    assert gcnet.load_checkpoint(run / "model.safetensors").classes is not None


def test_a_changed_setting_is_refused_on_resume(work):
    """So the settings of the old file were read, and not replaced by defaults."""
    run = copy_run(HERE / "trained" / "classify_cut", work / "runs" / "classify_cut")
    result = CliRunner().invoke(app, ["train", "--resume", str(run), "--lr", "0.5"], prog_name="gcnet")
    assert result.exit_code == 1
    assert "0.001 -> 0.5" in " ".join(result.stderr.split())


def test_a_comparison_takes_its_finished_runs_as_they_are(work):
    pytest.importorskip("matplotlib")
    stored = HERE / "trained" / "compared"
    for variant in ("none", "se"):
        copy_run(stored / variant / "seed0", work / "runs" / "compared" / variant / "seed0")
    weights = [path.read_bytes() for path in sorted((work / "runs").rglob("model.safetensors"))]
    settings = Settings(data="photos", model="timm/test_efficientnet", batch_size=4, image_size=32, epochs=1)
    options = {"name": "compared", "cost_rounds": 1, "progress": False}
    result = compare(settings, blocks=["none", "se"], seeds=1, **options)
    assert not result.failures
    assert weights == [path.read_bytes() for path in sorted((work / "runs").rglob("model.safetensors"))]
    ours, theirs = ((folder / "runs.csv").read_text(encoding="utf-8") for folder in (work / "runs/compared", stored))
    assert ours == theirs
