"""Published checkpoints: mmdet's lists of keys and files, the names of 2019, torchvision, timm; and `convert`."""

import gzip
import json
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torch.utils._pytree import tree_leaves

import gcnet
from gcnet.checkpoints.detectors import build
from gcnet.checkpoints.mmdet import names as mmdet
from gcnet.checkpoints.mmdet.architecture import architecture_of
from gcnet.errors import CheckpointError, SettingsError
from gcnet.models.weights import fill_all
from gcnet.recipes import convert
from tests.models.detection.fixtures import NAMES

ZOO = 25


def keys_of(path: Path) -> dict[str, Tensor]:
    with gzip.open(path) as file:
        listed = json.load(file)
    return {
        key: torch.empty(shape, device="meta", dtype=getattr(torch, dtype.removeprefix("torch.")))
        for key, (shape, dtype) in listed.items()
    }


def test_every_list_of_the_zoo_is_recognised_built_and_filled(shared):
    """Without any config: names and shapes alone."""
    folder = shared / "fixtures/full"
    counts = {row["config"]: row["params"] for row in json.loads((folder / "param_counts.json").read_text())}
    built: dict[str, torch.nn.Module] = {}
    done = []
    for path in sorted(folder.glob("*.keys.json.gz")):
        name = path.name.removesuffix(".keys.json.gz")
        tensors = mmdet.translate(keys_of(path))
        found = architecture_of(tensors, {})
        if repr(found) not in built:
            with torch.device("meta"):
                built[repr(found)] = build(found)
        model = built[repr(found)]
        fill_all(model, tensors)
        assert sum(p.numel() for p in model.parameters()) == counts[name], name
        blocks = {stage: ratio for call in found.inserts for stage in call["stages"] for ratio in [call["reduction"]]}
        ratio = re.search(r"-r(\d+)-gcb|gcb-r(\d+)", name)
        assert blocks == (dict.fromkeys(("c3", "c4", "c5"), int(ratio[1] or ratio[2])) if ratio else {}), name
        assert (found.deform is not None) == ("dconv" in name)
        done.append(name)
    assert len(done) == ZOO


@pytest.mark.parametrize("name", NAMES)
def test_files_of_mmdet_are_read_and_compute_its_maps(shared, name):
    folder = shared / "fixtures/detectors" / name
    loaded = gcnet.load_checkpoint(folder / "checkpoint.pth")
    reference = torch.load(folder / "reference.pt", weights_only=True)
    sizes = [tuple(meta["img_shape"][:2]) for meta in reference["metas"]]
    found = loaded.model.trace(reference["input"], sizes)
    for part in ("backbone", "fpn"):
        for mine, theirs in zip(found[part], reference[part], strict=True):
            assert float((mine - theirs).norm() / theirs.norm()) < 1e-4
    assert loaded.source.startswith("mmdet")
    assert loaded.classes == ["person", "bicycle", "car", "motorcycle", "airplane"]
    assert loaded.architecture["assumed"] == [], "its config tells all"
    assert loaded.architecture["num_classes"] == 5
    assert bool(gcnet.inserted(loaded.model))
    assert not loaded.model.training


def test_what_no_tensor_tells_is_listed_as_assumed(shared, tmp_path):
    state = _state(shared, "g_mask_r50_nonlocal")
    torch.save(state, tmp_path / "m.pth")
    assumed = "\n".join(gcnet.load_checkpoint(tmp_path / "m.pth").architecture["assumed"])
    for words in (
        "mode of the non-local blocks in c4: embedded_gaussian",
        "use_scale",
        "normalisation",
        "no class names",
    ):
        assert words in assumed


def test_the_config_decides_what_no_tensor_tells(shared):
    tensors = mmdet.translate(_state(shared, "g_mask_r50_nonlocal"))
    plugin = {"cfg": {"type": "NonLocal2d", "mode": "dot_product"}, "stages": (False, False, True, False)}
    plugin["position"] = "after_conv3"
    pixels = {"mean": [0.0, 51.0, 255.0], "std": [255.0] * 3, "bgr_to_rgb": False}
    config = {
        "model": {"backbone": {"plugins": [plugin]}, "data_preprocessor": pixels},
        "test_pipeline": [{"type": "Resize", "scale": (640, 320)}],
    }
    found = architecture_of(tensors, config)
    assert found.inserts[0]["pairwise"] == "dot_product"
    assert found.inserts[0]["scale"] == 1.0
    assert found.is_bgr
    assert found.detector["image_mean"] == [1.0, 0.2, 0.0]
    assert (found.detector["min_size"], found.detector["max_size"]) == (320, 640)


def test_a_config_that_cannot_be_built_is_refused(shared):
    tensors = mmdet.translate(_state(shared, "a_mask_r50_gcb_r16"))
    config = {"model": {"backbone": {"style": "caffe"}, "rpn_head": {"anchor_generator": {"scales": [4]}}}}
    with pytest.raises(CheckpointError, match=r"backbone.style='caffe' \(gcnet: 'pytorch'\); rpn_head.*scales=\[4\]"):
        architecture_of(tensors, config)


def test_old_names_and_the_background_first_are_brought_into_order(shared):
    new = _state(shared, "e_cascade_x101_dconv_gcb_r16")
    old = {}
    for key, value in new.items():
        layer = key.split(".")[-2]
        if layer == "fc_cls":
            value = value.roll(1, 0)
        elif layer == "conv_logits":
            value = torch.cat([torch.full_like(value[:1], 9.0), value])
        old["module." + key.replace("roi_head.", "").replace("conv2.conv_offset", "conv2_offset")] = value
    ours, theirs = mmdet.translate(new), mmdet.translate(old)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_boxes_of_the_old_background_are_dropped():
    zeros = torch.zeros
    old = {
        "bbox_head.fc_cls.weight": torch.arange(4.0)[:, None],
        "bbox_head.fc_reg.weight": torch.arange(16.0)[:, None],
        "bbox_head.shared_fcs.0.weight": zeros(1, 49),
    }
    ours = mmdet.translate(old)
    assert ours["roi_heads.box_predictor.cls_score.weight"].flatten().tolist() == [1, 2, 3, 0]
    assert ours["roi_heads.box_predictor.bbox_pred.weight"].flatten().tolist() == list(range(4, 16))


def test_the_4conv1fc_heads_of_2019_have_torchvisions_names():
    leaves = [f"shared_convs.{i}.{leaf}" for i in range(4) for leaf in ("conv.weight", "bn.running_mean")]
    old = {f"bbox_head.{leaf}": torch.zeros(2, 2) for leaf in [*leaves, "shared_fcs.0.weight", "fc_cls.weight"]}
    model = gcnet.models.detection.create_detector(
        "fasterrcnn_resnet18_fpn",
        num_classes=1,
        box_head="4conv1fc",
        head_norm="batch",
        base_channels=8,
        fpn_channels=8,
    )
    assert mmdet.translate(old).keys() <= model.state_dict().keys()


def test_tensors_that_no_layer_has_are_counted_and_named(shared, tmp_path):
    state = _state(shared, "a_mask_r50_gcb_r16")
    with pytest.raises(CheckpointError, match=r"2 of \d+ tensors are of no layer of mmdet .*: neck\.extra, mask_iou"):
        mmdet.translate(state | {"neck.extra": torch.ones(1), "mask_iou": torch.ones(1)})
    del state["roi_head.mask_head.upsample.bias"]
    state["backbone.layer2.0.bn9.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m\.pth: .* 1 missing: .*conv5_mask\.bias; 1 unknown .*layer2\.0\.bn9"):
        gcnet.load_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["resnet18", "timm/gcresnet50t"])
def test_classifiers_of_torchvision_and_timm(tmp_path, name):
    if name.startswith("timm/"):
        theirs = timm.create_model(name.removeprefix("timm/"), num_classes=7).eval()
    else:
        theirs = torchvision.models.get_model(name, num_classes=7).eval()
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), theirs(x))
    assert loaded.architecture["name"] == name
    assert loaded.architecture["num_classes"] == 7
    assert loaded.source == name.partition("/")[0].replace("resnet18", "torchvision")


def test_detectors_of_torchvision(tmp_path):
    theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    state = theirs.state_dict()
    torch.save({key.replace("_blocks.0.0.", "_blocks.0."): value for key, value in state.items()}, tmp_path / "m.pth")
    loaded = gcnet.load_checkpoint(tmp_path / "m.pth")
    assert loaded.architecture["preset"] == "torchvision"
    assert loaded.architecture["num_classes"] == 3
    assert all(torch.equal(value, loaded.model.state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize("name", ["e_cascade_x101_dconv_gcb_r16", "g_mask_r50_nonlocal"])
def test_convert_writes_a_file_that_computes_the_same(shared, tmp_path, name):
    source = shared / "fixtures/detectors" / name / "checkpoint.pth"
    result = convert(source, tmp_path / "m.safetensors")
    again, first = gcnet.load_checkpoint(result.path), gcnet.load_checkpoint(source)
    images = torch.randn(1, 3, 64, 64)
    ours, theirs = first.model.trace(images, [(64, 64)]), again.model.trace(images, [(64, 64)])
    for part in ("fpn", "detections", "masks"):
        for a, b in zip(tree_leaves(ours[part]), tree_leaves(theirs[part]), strict=True):
            assert torch.equal(a, b)
    assert again.source == "gcnet format 1"
    assert again.classes == first.classes
    assert again.preprocessing == first.preprocessing
    assert again.architecture == first.architecture


def test_convert_refuses_other_outputs(tmp_path):
    for out, message in (
        ("m.pth", "a checkpoint is a .safetensors file"),
        ("m.safetensors", "is the file to be converted"),
    ):
        with pytest.raises(SettingsError, match=message):
            convert(tmp_path / "m.safetensors", tmp_path / out)


def _state(shared: Path, name: str) -> dict[str, Tensor]:
    from gcnet.files.unpickle import unpickle

    return dict(unpickle(shared / "fixtures/detectors" / name / "checkpoint.pth")["state_dict"])
