"""What a user may write: every public name once, with the type that a type checker must see. It is read, never run."""

from pathlib import Path
from typing import Any, assert_type

import torch
from PIL import Image
from torch import Tensor, nn

import gcnet
from gcnet import data, models, recipes


def rewriting(model: nn.Module, images: Tensor) -> nn.Module:
    block = gcnet.create_block("gc", 64, reduction=8)
    assert_type(block, nn.Module)
    assert_type(gcnet.list_blocks(), list[str])
    own = gcnet.insert(model, lambda channels: gcnet.blocks.GlobalContext(channels), at="layer4")
    named = gcnet.insert(own, "gc", stages=("c3", "c4"), where="last", position="after_1x1", reduction=4)
    assert_type(gcnet.inserted(named), dict[str, nn.Module])
    deformed = gcnet.deform(named, stages=["c5"], modulated=True)
    faster = gcnet.accelerate(deformed)
    simpler = gcnet.simplify(faster, [images], max_error=0.02)
    folded = gcnet.fold(simpler.eval(), images)
    assert_type(folded, nn.Module)
    assert_type(gcnet.ops.attention_pool(images, torch.zeros(3)), Tensor)
    return folded


def looking(model: nn.Module, images: Tensor) -> None:
    analysis = gcnet.analyze(model, images)
    assert_type(analysis, gcnet.Analysis)
    assert_type(gcnet.__version__, str)
    profile = gcnet.profile(model, (3, 224, 224), rounds=5)
    assert_type(profile, gcnet.Profile)
    assert_type(profile.macs, int)


def keeping(path: Path) -> nn.Module:
    assert_type(gcnet.list_models(), list[str])
    assert gcnet.list_models() == models.list_models()
    model = gcnet.create_model("resnet18", num_classes=3, block="gc", stages=["c4"], reduction=8)
    gcnet.save_checkpoint(model, path)
    try:
        checkpoint = gcnet.load_checkpoint(path, architecture=models.create_model("resnet18", num_classes=3))
    except gcnet.CheckpointError as error:
        raise SystemExit(str(error)) from error
    assert_type(checkpoint, gcnet.Checkpoint)
    assert_type(checkpoint.classes, list[str] | None)
    return checkpoint.model


def detecting(images: list[Tensor], weights: Path) -> Any:
    try:
        detector = models.create_detector("fasterrcnn_resnet18_fpn", num_classes=2, min_size=128)
    except models.WeightsError as error:
        raise SystemExit(f"{weights}: {error}") from error
    return detector.eval()(images)


def running(folder: Path, weights: Path) -> None:
    settings = recipes.Settings(data=str(folder), model="resnet18", block="gc", epochs=1)
    run = recipes.train(settings, progress=False)
    assert_type(run, recipes.Run)
    assert_type(recipes.evaluate(weights, split="val"), dict[str, Any])
    assert_type(recipes.predict(weights, [folder / "a.png"]), list[dict[str, Any]])
    assert_type(recipes.analyze(weights, folder), gcnet.Analysis)
    assert_type(recipes.profile(weights), gcnet.Profile)
    recipes.compare(settings, blocks=["gc", "nl"], seeds=2)
    recipes.fold(weights, folder / "folded.safetensors")
    recipes.convert(weights, folder / "ours.safetensors")
    recipes.simplify(weights, folder / "simple.safetensors", images=folder)
    assert_type(recipes.export(weights, folder / "m.onnx", dynamic="batch").size, int)
    recipes.demo(quick=True)


def reading(folder: Path, preprocessing: dict[str, Any]) -> None:
    try:
        found = data.load_classification(str(folder))
        image = data.read_image(folder / "a.png")
    except (data.DataError, data.ImageError) as error:
        raise SystemExit(str(error)) from error
    except data.DataWarning as warning:
        raise SystemExit(str(warning)) from warning
    assert_type(found, data.ClassificationData)
    assert_type(image, Image.Image)
    samples: list[data.Sample] = list(found.train)
    assert_type(data.fingerprint(found), str)
    dataset = data.ImageDataset(samples, data.eval_transform(preprocessing))
    item: data.Item = dataset[0]
    batch: data.Batch = data.collate([item])
    assert_type(batch.images, Tensor)
    data.train_transform(preprocessing)
    boxes = data.load_detection(str(folder))
    assert_type(boxes, data.DetectionData)
    annotated: list[data.Annotated] = list(boxes.train)
    instances: list[data.Instance] = list(annotated[0].instances)
    transforms = data.detection_train_transform(sizes=[480, 512], max_size=800), data.detection_eval_transform()
    objects = data.DetectionDataset(annotated, transforms[1])
    example: data.DetectionItem = objects[0]
    together: data.DetectionBatch = data.collate_detection([example])
    assert_type(together.targets, list[dict[str, Any]])
    assert_type(instances[0].label, int)
