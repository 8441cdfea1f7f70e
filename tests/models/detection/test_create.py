"""create_detector and gcnet.create_model: names, sizes of the published models, presets, wrong arguments."""

import json

import pytest
import torch
import torchvision

import gcnet
from gcnet.models import create_detector
from gcnet.models.catalogue import build
from gcnet.models.detection import DETECTORS
from gcnet.surgery import record
from tests.models.detection.small import KINDS, batch, small


def test_the_published_models_have_the_published_numbers_of_parameters(shared):
    path = shared / "fixtures" / "full" / "param_counts.json"
    if not path.is_file():
        pytest.skip("no published numbers")
    kinds = {
        "cascade": "cascade_maskrcnn",
        "mask": "maskrcnn",
        "faster": "fasterrcnn",
        "retinanet_r50_fpn_1x_coco": "retinanet",
    }
    rows = json.loads(path.read_text())
    assert len(rows) == 25
    plain, seen = {}, set()
    for row in rows:
        same = (row["params"], row["backbone"], row["gcb_blocks"])
        if same in seen:  # with and without synchronised norms
            continue
        seen.add(same)
        config = row["config"]
        trunk = "resnext101_32x4d" if "x101" in config else "resnet101" if "r101" in config else "resnet50"
        name = f"{kinds[config.split('-')[0]]}_{trunk}_fpn"
        with torch.device("meta"):
            if name not in plain:
                plain[name] = create_detector(name, num_classes=80, preset="mmdet", norm="sync")
            model = plain[name]
            if "dconv" in config:
                model = gcnet.deform(model, stages=("c3", "c4", "c5"))
            if "gcb" in config:
                model = gcnet.insert(model, "gc", reduction=4 if "-r4-" in config else 16)
        assert sum(p.numel() for p in model.parameters()) == row["params"], config
        assert sum(p.numel() for p in model.backbone.body.parameters()) == row["backbone"], config
        assert len(gcnet.inserted(model)) == row["gcb_blocks"], config


@pytest.mark.parametrize("kind", ["fasterrcnn", "maskrcnn", "retinanet"])
def test_the_preset_torchvision_is_torchvisions_model(kind):
    options = {"min_size": 64, "max_size": 64, "detections_per_image": 9}
    ours = create_detector(f"{kind}_resnet50_fpn", num_classes=2, **options).eval()
    build = torchvision.models.get_model_builder(f"{kind}_resnet50_fpn")
    few = {"detections_per_img" if kind == "retinanet" else "box_detections_per_img": 9}
    theirs = build(weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, **few).eval()
    if kind == "retinanet":  # it starts with scores of 0.01, below the threshold
        torch.nn.init.zeros_(ours.head.classification_head.cls_logits.bias)
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        found, expected = ours([image])[0], theirs([image])[0]
    real = expected["labels"] > 0  # RetinaNet of torchvision also puts out the background, which it never trains
    assert real.any()
    for key in expected:
        assert torch.equal(found[key], expected[key][real] - (1 if key == "labels" else 0)), key


def test_every_kind_and_every_backbone_builds_on_the_meta_device_and_says_how():
    assert len(DETECTORS) == 20
    assert gcnet.list_models()[-20:] == list(DETECTORS)
    for name in DETECTORS:
        if "resnet50" not in name and not name.startswith("fasterrcnn"):
            continue  # kind and backbone know nothing of each other
        with torch.device("meta"):
            model = gcnet.create_model(name, num_classes=7)
        built = {"schema": 2, "name": name, "num_classes": 7, "options": {"preset": "torchvision"}}
        assert record.architecture(model) == built | {"task": "instances" if "mask" in name else "detect"}


@pytest.mark.parametrize("preset", ["torchvision", "mmdet"])
@pytest.mark.parametrize("kind", KINDS)
def test_detections_lie_in_their_pictures_with_labels_from_zero(kind, preset):
    model = small(kind, preset=preset, score_threshold=0.01).eval()
    images, _ = batch()
    with torch.no_grad():
        found = model([*images, torch.rand(3, 40, 90)])
    assert [set(f) for f in found] == [{"boxes", "labels", "scores", *(["masks"] if "mask" in kind else [])}] * 3
    for f, (height, width) in zip(found, ((64, 64), (64, 80), (40, 90)), strict=True):
        assert len(f["boxes"]) > 0
        assert f["boxes"].min() >= 0
        assert (f["boxes"].amax(0) <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert 0 <= int(f["labels"].min()) <= int(f["labels"].max()) <= 2
        if "mask" in kind:
            assert f["masks"].shape == (len(f["boxes"]), 1, height, width)
            assert 0 <= float(f["masks"].min()) <= float(f["masks"].max()) <= 1


@pytest.mark.parametrize("preset", ["torchvision", "mmdet"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_ends_where_the_call_ends(kind, preset):
    model = small(kind, preset=preset, score_threshold=0.01).eval()
    image = torch.rand(3, 64, 96)
    normalised = model.transform([image])[0].tensors
    trace = model.trace(normalised, [(64, 96)])
    with torch.no_grad():
        found = model([image])[0]
    assert set(trace) == {"backbone", "fpn", "rpn", "proposals", "rois", "logits", "deltas", "detections", "masks"}
    for key in ("boxes", "scores", "labels"):
        torch.testing.assert_close(trace["detections"][0][key], found[key])
    assert [level.shape[-1] for level in trace["backbone"]] == [24, 12, 6, 3]
    assert len(trace["fpn"]) == 5
    assert len(trace["masks"]) == ("mask" in kind)


def test_nothing_found_is_an_empty_answer():
    for kind in ("cascade_maskrcnn", "retinanet"):
        found = small(kind, preset="mmdet", score_threshold=0.999).eval()([torch.rand(3, 64, 64)])[0]
        assert len(found["boxes"]) == len(found["labels"]) == len(found["scores"]) == 0


def test_the_architecture_on_record_builds_the_model_again():
    model = small(
        "cascade_maskrcnn",
        trunk="resnext50_32x4d",
        groups=4,
        group_width=2,
        preset="mmdet",
        box_head="4conv1fc",
        head_norm="group",
    )
    record_ = json.loads(json.dumps(record.architecture(model)))
    again = create_detector(record_["name"], num_classes=record_["num_classes"], **record_["options"])
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert again.backbone.body.layer1[0].conv2.groups == 4
    assert again.backbone.body.layer1[0].conv2.out_channels == 8
    assert again.rpn.post_nms_top_n() == 30


def test_four_convolutions_and_one_linear_layer_have_torchvisions_names():
    keys = small("fasterrcnn", box_head="4conv1fc").state_dict()
    assert keys["roi_heads.box_head.3.0.weight"].shape == (16, 16, 3, 3)
    assert keys["roi_heads.box_head.5.weight"].shape == (32, 16 * 49)


@pytest.mark.parametrize(
    "trunk", ["timm/resnet18", "timm/test_resnet", "timm/mobilenetv3_small_050", "mobilenet_v3_small", "convnext_tiny"]
)
def test_nets_of_timm_and_torchvision_serve_as_backbones(trunk):
    nested = "mobilenetv3" in trunk  # its stages are no children of the net
    frozen = None if nested else 1
    model = small("fasterrcnn", trunk=trunk, base_channels=None, frozen_stages=frozen, norm="frozen").eval()
    assert [m.shape[-1] for m in model.backbone.maps(torch.rand(1, 3, 64, 64))] == [16, 8, 4, 2]
    assert all(p.requires_grad for p in model.backbone.body.parameters()) == nested
    assert any(p.requires_grad for p in model.backbone.body.parameters())
    assert len(model([torch.rand(3, 64, 64)])[0]["boxes"]) >= 0
    assert gcnet.inserted(gcnet.insert(model, "gc", stages=("c4",)))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("fastrcnn_resnet50_fpn", {}, "is no detector; names are KIND_BACKBONE_fpn with a kind of fasterrcnn"),
        ("fasterrcnn_resnet51_fpn", {}, "'resnet51' is no backbone; use one of resnet18"),
        ("fasterrcnn_timm/resnet51_fpn", {}, "timm knows no backbone 'resnet51'"),
        ("fasterrcnn_timm/vit_tiny_patch16_224_fpn", {}, "maps of strides .*; a pyramid needs"),
        ("fasterrcnn_timm/resnet18_fpn", {"norm": "group"}, "norm='group' is for torchvision's ResNets"),
        (
            "fasterrcnn_timm/resnet18_fpn",
            {"base_channels": 8},
            "base_channels=8: .* has no torchvision ResNet but timm",
        ),
        ("retinanet_resnet18_fpn", {"fc_channels": 8}, "fc_channels=8: a retinanet on resnet18 has no RoI heads"),
        ("fasterrcnn_resnet18_fpn", {"mask_channels": 8}, "mask_channels=8: .* has no masks; leave mask_channels out"),
        ("fasterrcnn_resnet18_fpn", {"preset": "detectron"}, "preset='detectron': allowed are 'torchvision', 'mmdet'"),
        ("fasterrcnn_resnet18_fpn", {"norm": "layer"}, "norm='layer': allowed are 'batch', 'frozen', 'sync', 'group'"),
        ("fasterrcnn_resnet18_fpn", {"frozen_stages": 5}, "frozen_stages=5: allowed are None and 0"),
        (
            "fasterrcnn_timm/mobilenetv3_small_050_fpn",
            {"frozen_stages": 1},
            "frozen_stages=1: where the stages.*use None",
        ),
        ("fasterrcnn_resnet18_fpn", {"proposals": (0, 5)}, r"proposals=\(0, 5\): expected two numbers from 1"),
        ("fasterrcnn_resnet18_fpn", {"box_head": "3fc"}, "box_head='3fc': allowed are None, '2fc', '4conv1fc'"),
        ("fasterrcnn_resnet18_fpn", {"num_classes": 0}, "num_classes=0: allowed are whole numbers from 1"),
        ("fasterrcnn_resnext101_32x4d_fpn", {"base_channels": 8}, "leaves no channel in the groups.*give groups"),
        ("fasterrcnn_resnet18_fpn", {"fpn_channels": 0}, "fpn_channels=0: allowed are whole numbers from 1"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(name, options, match):
    with pytest.raises(ValueError, match=match):
        create_detector(name, **{"num_classes": 3, **options})


def test_options_of_detectors_are_not_for_classifiers():
    with pytest.raises(TypeError, match="fpn_channels given without block"):
        gcnet.create_model("resnet18", num_classes=3, fpn_channels=16)


@pytest.mark.parametrize("trunk", ["mobilenet_v3_small", "timm/convnext_atto"])
def test_weights_of_other_classifiers_find_their_places(trunk, monkeypatch):
    classifier = build(trunk, 10)
    monkeypatch.setattr("gcnet.models.weights._downloaded", lambda name: classifier.state_dict())
    model = gcnet.create_model(f"fasterrcnn_{trunk}_fpn", num_classes=2, weights="imagenet")
    theirs = list(classifier.state_dict().values())
    own = model.backbone.body.state_dict()
    assert sum(any(v.shape == t.shape and torch.equal(v, t) for t in theirs) for v in own.values()) == len(own)


def test_weights_of_a_classifier_fill_the_backbone(monkeypatch):
    classifier = torchvision.models.resnet18(num_classes=10)
    monkeypatch.setattr("gcnet.models.weights._downloaded", lambda name: classifier.state_dict())
    model = gcnet.create_model("fasterrcnn_resnet18_fpn", num_classes=2, weights="imagenet", block="gc", stages=["c4"])
    assert torch.equal(model.backbone.body.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
    assert torch.equal(model.backbone.body.bn1.running_var, classifier.bn1.running_var)


def test_a_file_of_weights_fills_a_detector_of_other_classes_but_for_its_predictors(tmp_path, caplog):
    source = small("maskrcnn", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    options = {"base_channels": 8, "fpn_channels": 16, "fc_channels": 32, "mask_channels": 8}
    model = gcnet.create_model("maskrcnn_resnet18_fpn", num_classes=2, weights=tmp_path / "w.pth", **options)
    assert "its head is of another size" in caplog.text
    assert torch.equal(model.roi_heads.box_head.fc6.weight, source.roi_heads.box_head.fc6.weight)
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 3
