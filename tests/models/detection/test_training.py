"""Both presets of every detector learn: finite losses that fall on one small batch, and gradients where they belong."""

import pytest
import torch
from torch import nn

from tests.models.detection.small import KINDS, batch, small


@pytest.mark.parametrize("preset", ["torchvision", "mmdet"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_finite_and_fall_on_one_batch(kind, preset):
    few = {} if kind == "retinanet" else {"train_proposals": (100, 2)}  # what the RPN learns changes the heads' task
    model = small(kind, preset=preset, **few).train()
    if kind == "retinanet":  # it starts with weights that take a thousand steps to grow
        for name, parameter in model.head.named_parameters():
            if parameter.ndim == 4 and ".conv." in name:
                nn.init.kaiming_normal_(parameter)
    images, targets = batch()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sums = []
    for _ in range(8):
        torch.manual_seed(0)  # the same draw of boxes every time
        losses = model(images, targets)
        total = sum(losses.values())
        assert torch.isfinite(total), losses
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        sums.append(float(total.detach()))
    assert sums[-1] < 0.85 * sums[0], sums
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_cascade_has_losses_of_three_stages_with_falling_weights():
    model = small("cascade_maskrcnn", preset="mmdet").train()
    losses = model(*batch())
    kinds = ("loss_classifier", "loss_box_reg", "loss_mask")
    assert set(losses) == {f"{kind}_{k}" for kind in kinds for k in range(3)} | {"loss_objectness", "loss_rpn_box_reg"}
    # at the start all stages guess alike: ln 4 for four classes, less the weights 1, 0.5, 0.25
    first, second, third = (float(losses[f"loss_classifier_{k}"].detach()) for k in range(3))
    assert first == pytest.approx(2 * second, rel=0.4)
    assert first == pytest.approx(4 * third, rel=0.4)


def test_a_picture_without_objects_is_a_picture():
    images, targets = batch()
    targets[1] = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 80, dtype=torch.uint8),
    }
    for kind in ("cascade_maskrcnn", "retinanet"):
        losses = small(kind, preset="mmdet").train()(images, targets)
        assert torch.isfinite(sum(losses.values()))


def test_targets_are_not_changed():
    images, targets = batch()
    before = [{key: value.clone() for key, value in target.items()} for target in targets]
    small("maskrcnn").train()(images, targets)
    assert all(torch.equal(t[key], b[key]) for t, b in zip(targets, before, strict=True) for key in b)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("masks"), r"targets\[1\] has no masks; it has boxes, labels"),
        (
            lambda t: t.update(labels=torch.tensor([3])),
            r"holds 3 to 3; allowed are 0 to 2 \(num_classes=3, the background",
        ),
        (lambda t: t.update(labels=torch.tensor([1.0])), r"labels'\] is torch.float32 \(1,\); expected int64 \(1,\)"),
        (
            lambda t: t.update(boxes=torch.tensor([[5.0, 5.0, 5.0, 9.0]])),
            r"boxes'\]\[0\] is \[5.0, 5.0, 5.0, 9.0\], which has no area",
        ),
        (lambda t: t.update(boxes=torch.tensor([[float("nan"), 5.0, 8.0, 9.0]])), r"boxes'\]\[0\] is \[nan, .*no area"),
        (lambda t: t.update(boxes=torch.zeros(4)), r"boxes'\] is torch.float32 \(4,\); expected float \(N, 4\)"),
        (lambda t: t.update(masks=torch.zeros(2, 64, 80)), r"masks'\] is \(2, 64, 80\); expected \(1, H, W\)"),
    ],
)
def test_wrong_targets_are_named(change, match):
    images, targets = batch()
    change(targets[1])
    with pytest.raises(ValueError, match=match):
        small("maskrcnn").train()(images, targets)


def test_training_without_targets_is_named():
    images, targets = batch()
    with pytest.raises(ValueError, match="targets: none for 2 images"):
        small("retinanet").train()(images)
    with pytest.raises(ValueError, match="targets: 1 for 2 images"):
        small("fasterrcnn").train()(images, targets[:1])


def test_frozen_stages_neither_learn_nor_count_statistics():
    model = small("fasterrcnn", frozen_stages=1).train()
    body = model.backbone.body
    fixed = [name for name, p in body.named_parameters() if not p.requires_grad]
    assert {name.split(".")[0] for name in fixed} == {"conv1", "bn1", "layer1"}
    assert not body.bn1.training
    assert not body.layer1[0].bn1.training
    assert body.layer2[0].bn1.training
    before = {key: value.clone() for key, value in body.state_dict().items()}
    losses = model(*batch())
    sum(losses.values()).backward()
    moved = {key.split(".")[0] for key, value in body.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"layer2", "layer3", "layer4"}


def test_the_stem_alone_can_be_frozen():
    body = small("fasterrcnn", frozen_stages=0).backbone.body
    assert {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad} == {"conv1", "bn1"}


@pytest.mark.parametrize(("preset", "learns"), [("torchvision", False), ("mmdet", True)])
def test_frozen_norms_keep_their_statistics(preset, learns):
    model = small("fasterrcnn", preset=preset, norm="frozen").train()
    norm = model.backbone.body.layer3[0].bn1
    before = norm.running_mean.clone()
    sum(model(*batch()).values()).backward()
    assert torch.equal(norm.running_mean, before)
    assert isinstance(norm.weight, nn.Parameter) == learns
    if learns:
        assert norm.weight.grad is not None


def test_synchronised_norms_are_plain_ones_in_evaluation_mode():
    torch.manual_seed(1)
    plain = small("fasterrcnn").eval()
    model = small("fasterrcnn", norm="sync").eval()
    model.load_state_dict(plain.state_dict())
    assert isinstance(model.backbone.body.bn1, nn.SyncBatchNorm)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.backbone(x)["1"], plain.backbone(x)["1"])


@pytest.mark.parametrize("kind", ["cascade_maskrcnn", "retinanet"])
def test_boxes_keep_their_precision_in_mixed_precision(kind):
    model = small(kind, preset="mmdet", score_threshold=0.005)
    images, targets = batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train()(images, targets)
        found = model.eval()(images)[0]
    assert torch.isfinite(sum(losses.values()))
    assert len(found["boxes"]) > 0
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert not torch.equal(found["boxes"], found["boxes"].bfloat16().float())
