"""Writes the files that test_version_one.py reads. Run once, with the code of version 0.1.0; kept for the record.

    python -m tests.v1.make

Later code cannot run it and must not: these files stand for those that people have. Files of more than a few kilobytes
are described instead (`synthetic.rebuild`, `synthetic.hollow`): what the old code wrote stays to the letter, but long
tensors are made from their names. What is expected was computed by the old code from the files so made.
"""

import contextlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from torch import nn

import gcnet
from gcnet.models.detection import create_detector
from gcnet.recipes import Settings, compare, evaluate, predict, train
from gcnet.recipes.detection_settings import detection_settings
from gcnet.tasks.task import Task
from tests.v1.synthetic import (
    copy_run,
    fill,
    hollow,
    net,
    outputs,
    pixels,
    rebuild,
    some_of,
    write_objects,
    write_photos,
)

HERE = Path(__file__).parent
# Stored as they are; of the others header, names and shapes.
WHOLE = (
    "insert_gc",
    "insert_in_a_sequential",
    "accelerate",
    "fold",
    "fold_sequential",
    "detector",
)
TINY = {"base_channels": 2, "fpn_channels": 4, "fc_channels": 4, "proposals": [60, 20]}
IMAGES, SCENES = (2, 3, 64, 64), (2, 1, 48, 48)


def basic(*rewrites: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return _rewritten(net("basic"), *rewrites)


def _rewritten(model: nn.Module, *rewrites: Callable[[nn.Module], nn.Module]) -> nn.Module:
    for rewrite in rewrites:
        model = rewrite(fill(model))
    return model.eval()


def insert(block: str = "gc", **options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda model: fill(gcnet.insert(model, block, **options))


def deform(**options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda model: fill(gcnet.deform(model, **options))


def simplified(model: nn.Module, form: str = "shared") -> nn.Module:
    images = [pixels(f"batch {index}", (8, 1, 48, 48)) for index in range(2)]
    with mock.patch.object(sys.modules["gcnet.rewrites.simplify"], "forms", return_value=(form,)):
        return gcnet.rewrites.simplify(model, images, max_error=math.inf).eval()


def scenes(block: str | None, **options: Any) -> nn.Module:
    return fill(gcnet.create_model("scenes", num_classes=3, block=block, **options))


def classifier(name: str, **options: Any) -> nn.Module:
    model = fill(gcnet.create_model(name, num_classes=3, **options))
    model.gcnet_classes = ["a", "b", "c"]  # as a trained one has
    return model


def detector(kind: str, **options: Any) -> nn.Module:
    widths = {**TINY, "min_size": 64, "max_size": 96, "score_threshold": 0.0, "detections_per_image": 5, **options}
    if kind == "retinanet":
        widths = {key: value for key, value in widths.items() if key not in ("fc_channels", "proposals")}
    return fill(create_detector(f"{kind}_resnet18_fpn", num_classes=2, **widths))


OPTIONS = {"bat": {"block_size": 2}}  # the map in c4 is of 4x4 positions
# name: (net of `synthetic` or None where the file itself says it, shape of the input, model)
CHECKPOINTS: dict[str, tuple[str | None, tuple[int, ...], Callable[[], nn.Module]]] = {
    **{
        f"insert_{block}": (
            "basic",
            IMAGES,
            lambda block=block: basic(insert(block, stages=["c4"], **OPTIONS.get(block, {}))),
        )
        for block in gcnet.list_blocks()
    },
    "insert_stages": ("basic", IMAGES, lambda: basic(insert(stages=["c3", "c5"], where="last", reduction=2))),
    "insert_where": ("basic", IMAGES, lambda: basic(insert("se", where=[0, 1], stages="c4", reduction=4))),
    "insert_after_add": ("basic", IMAGES, lambda: basic(insert("snl", stages="c4", position="after_add"))),
    "insert_at": (
        "basic",
        IMAGES,
        lambda: basic(insert("context", at=["layer2.*", "layer3"], pool="average", reduction=2)),
    ),
    "insert_twice": ("basic", IMAGES, lambda: basic(insert("nl", norm="batch"), insert("eca", stages=["c5"]))),
    "insert_inside": (
        "bottleneck",
        IMAGES,
        lambda: _rewritten(
            net("bottleneck"),
            insert(stages="c4", where=0, position="before_3x3", reduction=4),
            insert(stages="c4", where=1, position="after_3x3", reduction=4),
        ),
    ),
    "insert_in_a_sequential": (
        "sequential",
        IMAGES,
        lambda: _rewritten(net("sequential"), insert(at="1", reduction=2)),
    ),
    "insert_scenes_gc": (None, SCENES, lambda: scenes("gc")),
    "insert_scenes_nl": (None, SCENES, lambda: scenes("nl", pairwise="dot_product")),
    "insert_timm": (None, IMAGES, lambda: classifier("timm/test_efficientnet", block="gc", stages=["c4"])),
    "plain": (None, SCENES, lambda: scenes(None)),
    "deform_v1": ("basic", IMAGES, lambda: basic(deform(stages=["c4", "c5"]))),
    "deform_v2": (
        "bottleneck",
        IMAGES,
        lambda: _rewritten(
            net("bottleneck"), deform(stages="c3", modulated=True, mask_gate="sigmoid", deform_groups=2)
        ),
    ),
    "accelerate": ("attentive", IMAGES, lambda: _rewritten(net("attentive"), gcnet.accelerate)),
    "accelerate_timm": (None, IMAGES, lambda: gcnet.accelerate(classifier("timm/test_efficientnet"))),
    "simplify_shared": (None, SCENES, lambda: simplified(scenes("nl"))),
    "simplify_image": (None, SCENES, lambda: simplified(scenes("nl", pairwise="dot_product"), "image")),
    "simplify_dnl": (None, SCENES, lambda: simplified(scenes("dnl"))),
    "fold": ("basic", IMAGES, lambda: basic(insert(stages=["c4", "c5"], reduction=2), gcnet.fold)),
    "fold_scenes": (None, SCENES, lambda: gcnet.fold(scenes("gc"))),
    "fold_sequential": ("sequential", IMAGES, lambda: _rewritten(net("sequential"), gcnet.fold)),
    "accelerate_fold": (None, IMAGES, lambda: gcnet.fold(gcnet.accelerate(classifier("timm/test_efficientnet")))),
    "insert_simplify_fold": (None, SCENES, lambda: gcnet.fold(simplified(scenes("nl")))),
    "insert_deform_fold": (
        "basic",
        IMAGES,
        lambda: basic(insert(stages=["c4"], reduction=4), deform(stages=["c4"]), gcnet.fold),
    ),
    "detector": (None, IMAGES, lambda: detector("fasterrcnn")),
    "detector_mmdet": (
        None,
        IMAGES,
        lambda: _rewritten(
            detector("maskrcnn", preset="mmdet", norm="frozen", frozen_stages=1, mask_channels=4),
            deform(stages=["c4"]),
            insert(stages=["c4", "c5"], reduction=2),
        ),
    ),
    "detector_cascade": (None, IMAGES, lambda: gcnet.fold(detector("cascade_rcnn", head_norm="batch"))),
    "detector_retinanet": (None, IMAGES, lambda: detector("retinanet", fpn_channels=32)),
}


def describe(path: Path) -> dict[str, Any]:
    """Header, names, dtypes and shapes of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = file.metadata()["gcnet"]
    shapes = {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in tensors.items()}
    return {"header": header, "tensors": shapes}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, separators=(", ", ": "), default=float)
    path.write_text(text.replace('"tensors": {', '"tensors": {\n ').replace("]], ", "]],\n ") + "\n", encoding="utf-8")


def write_checkpoints(work: Path) -> None:
    folder = HERE / "checkpoints"
    expected = {}
    for name, (architecture, shape, make) in CHECKPOINTS.items():
        model, path = make(), work / f"{name}.safetensors"
        gcnet.save_checkpoint(model, path)
        folder.mkdir(exist_ok=True)
        if name in WHOLE:
            shutil.copy(path, folder)
            own = outputs(model, name, shape)
        else:
            write_json(folder / f"{name}.json", describe(path))
            rebuild(folder / f"{name}.json", path)
        loaded = gcnet.load_checkpoint(path, architecture=net(architecture) if architecture else None)
        found = outputs(loaded.model, name, shape)
        assert name not in WHOLE or found == own, name
        rewrites = [rewrite["rewrite"] for rewrite in loaded.architecture["rewrites"]]
        expected[name] = {
            "net": architecture,
            "input": list(shape),
            "rewrites": rewrites,
            "classes": loaded.classes,
            "outputs": found,
        }
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in expected.items()]
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@contextlib.contextmanager
def cut_before(step: int) -> Iterator[None]:
    """Break a run off when so many steps are done."""
    plain = Task.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            raise KeyboardInterrupt
        return plain(self, batch, batch_idx)

    with mock.patch.object(Task, "training_step", training_step):
        yield


def keep(run: Path, *, checkpoints: bool) -> Path:
    """Store a run's folder in the form that `copy_run` fills again."""
    target = HERE / "trained" / run.relative_to("runs")
    for path in run.rglob("*"):
        goal = target / path.relative_to(run)
        if path.is_dir() or (path.suffix == ".ckpt" and not checkpoints):
            continue
        goal.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ckpt":
            content = io.BytesIO()  # a path would be noted in the file, and equal files would differ
            torch.save(hollow(torch.load(path, weights_only=True)), content)
            goal.write_bytes(content.getvalue())
        elif path.name == "model.safetensors":
            write_json(goal.with_suffix(".json"), describe(path))
        else:
            shutil.copy(path, goal)
    return target


def settings_of_runs() -> dict[str, Settings]:
    """Paths are relative: nothing of this machine is in the files."""
    classify = Settings(
        data="photos",
        model="timm/test_efficientnet",
        block="gc",
        stages=("c4",),
        where="0",
        block_options={"reduction": 4},
        batch_size=4,
        image_size=32,
        epochs=3,
        ema=0.5,
        mixup=0.4,
        block_lr=2.0,
        name="classify",
    )
    detect = detection_settings(
        "objects",
        task="detect",
        model="fasterrcnn_resnet18_fpn",
        detector_options=TINY | {"score_threshold": 0.0, "rois_per_image": 16, "train_proposals": [60, 20]},
        image_size=64,
        epochs=1,
        lr=0.01,
        warmup_steps=2,
        name="detect",
    )
    segment = replace(
        detect,
        task="segment",
        model="maskrcnn_resnet18_fpn",
        detector_options={**detect.detector_options, "mask_channels": 4},
        block="gc",
        stages=("c4", "c5"),
        block_options={"reduction": 4},
        deform=("c5",),
        scales=(48, 64),
        photometric=True,
        epochs=2,
        save_every=1,
        lr=1e-3,
        name="segment",
    )
    scenes = Settings(
        task="scenes",
        data="cue",
        model="scenes",
        block="nl",
        schedule="one_cycle",
        epochs=1,
        save_every=60,
        name="scenes",
    )
    return {"classify": classify, "detect": detect, "segment": segment, "scenes": scenes}


def write_finished(settings: Settings, work: Path) -> None:
    """A run that ended, and what evaluate and predict say of it."""
    settings = replace(settings, name=f"{settings.name}_done", epochs=1)
    train(settings, progress=False)
    stored = keep(settings.folder, checkpoints=False)
    run = copy_run(stored, work / stored.name)
    figures = evaluate(run, split="val")
    expected: dict[str, Any] = {"evaluate": {k: v for k, v in figures.items() if k != "weights"}}
    if settings.task != "scenes":
        images = sorted((Path(settings.data) / "val").rglob("*.bmp"))
        expected["predict"] = predict(run, images, threshold=0.0)
        for entry in expected["predict"]:
            for found in entry.get("objects", ()):
                found.pop("mask", None)
            entry["objects"] = entry.get("objects", [])[:1]  # scores below may tie
    (stored / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


def write_interrupted(settings: Settings, work: Path, *, step: int) -> None:
    """A run that was broken off, and what it becomes when it is resumed from the file as it is stored."""
    settings = replace(settings, name=f"{settings.name}_cut")
    with cut_before(step), contextlib.suppress(KeyboardInterrupt):
        train(settings, progress=False)
    assert json.loads((settings.folder / "summary.json").read_text())["status"] == "interrupted"
    stored = keep(settings.folder, checkpoints=True)
    copy_run(stored, work / stored.name)
    resumed = train(replace(settings, runs=work), resume=True, progress=False)
    content = torch.load(resumed.last, weights_only=True)
    expected = {
        "summary": {key: value for key, value in resumed.summary.items() if "seconds" not in key},
        "metrics": (resumed.folder / "metrics.csv").read_text(),
        "global_step": content["global_step"],
        "weights": some_of({k: v for k, v in content["state_dict"].items() if v.is_floating_point()}),
    }
    (stored / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


def write_comparison(settings: Settings) -> None:
    """Two finished runs of a comparison with their figures, and its table."""
    shared = replace(
        settings, block=None, stages=None, where=None, block_options={}, epochs=1, ema=None, mixup=0.0, block_lr=1.0
    )
    result = compare(shared, blocks=["none", "se"], seeds=1, name="compared", cost_rounds=1, progress=False)
    for variant in ("none", "se"):
        keep(Path("runs/compared") / variant / "seed0", checkpoints=False)
    for name in ("comparison.csv", "runs.csv"):
        shutil.copy(result.folder / name, HERE / "trained" / "compared")


def main() -> None:
    sys.argv = ["gcnet", "train"]  # noted in run.json
    torch.set_num_threads(1)
    for name in ("checkpoints", "trained"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        work = Path("copies")
        work.mkdir()
        write_checkpoints(work)
        write_photos(Path("photos"))
        write_objects(Path("objects"))
        settings = settings_of_runs()
        for name in settings:
            write_finished(settings[name], work)
        write_interrupted(settings["classify"], work, step=3)  # in the second epoch of two steps each
        write_interrupted(settings["segment"], work, step=4)  # one step after its last checkpoint
        write_interrupted(settings["scenes"], work, step=121)  # the checkpoint is of step 120 of 125
        write_comparison(settings["classify"])


if __name__ == "__main__":
    main()
