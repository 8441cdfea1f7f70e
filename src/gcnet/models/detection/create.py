"""`create_detector`: a detector by name, with torchvision's or mmdetection's numerics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from gcnet import errors
from gcnet.errors import GcnetError, whole
from gcnet.models.catalogue import parsed
from gcnet.models.detection.backbone import NORMS, RESNETS, Backbone, NormLayer, Shape, build_body
from gcnet.models.detection.detectors import OneStage, TwoStage
from gcnet.models.detection.presets import PRESETS, Preset
from gcnet.models.detection.roi_heads import (
    BOX_HEADS,
    DELTA_SCALES,
    IOU_THRESHOLDS,
    BoxPredictor,
    CascadeRoIHeads,
    MaskPredictor,
    build_box_head,
)
from gcnet.models.preprocessing import MEAN, STD
from gcnet.surgery import record

# Options that only some detectors have.
_TWO_STAGE = ("proposals", "train_proposals", "rois_per_image", "fc_channels", "box_head")
_MASK = ("mask_channels",)
_RESNET = ("base_channels", "groups", "group_width")


def create_detector(
    name: str,
    *,
    num_classes: int,
    preset: Literal["torchvision", "mmdet"] = "torchvision",
    norm: Literal["batch", "frozen", "sync", "group"] = "batch",
    frozen_stages: int | None = None,
    head_norm: Literal["batch", "frozen", "sync", "group"] | None = None,
    box_head: Literal["2fc", "4conv1fc"] | None = None,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    image_mean: Sequence[float] = MEAN,
    image_std: Sequence[float] = STD,
    proposals: Sequence[int] | None = None,
    train_proposals: Sequence[int] | None = None,
    rois_per_image: int | None = None,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    detections_per_image: int | None = None,
    base_channels: int | None = None,
    groups: int | None = None,
    group_width: int | None = None,
    fpn_channels: int = 256,
    fc_channels: int | None = None,
    mask_channels: int | None = None,
) -> TwoStage | OneStage:
    """A detector with random weights and a feature pyramid (arXiv 1612.03144), on torchvision's detection parts.

    The model takes a list of RGB images (3, H, W) in 0..1 and returns torchvision's dictionaries; in training mode it
    takes targets too (boxes x1, y1, x2, y2 in pixels, labels, masks) and returns a dictionary of losses. Labels are 0
    to num_classes - 1. Its parameters have torchvision's names.

    Args:
        name: `KIND_BACKBONE_fpn`. Kinds: fasterrcnn, maskrcnn, cascade_rcnn, cascade_maskrcnn, retinanet. Backbones:
            resnet18 to resnet152, resnext50_32x4d, resnext101_32x4d, resnext101_32x8d, resnext101_64x4d,
            wide_resnet50_2, wide_resnet101_2; nets of torchvision with `features`; `timm/NAME`.
        num_classes: foreground classes.
        preset: "torchvision": its parts as they are, for its weights. "mmdet": what mmdetection 2 and 3 compute
            (anchors, RoIAlign, limits of boxes, NMS, pasting of masks; the background comes last in the weights).
        norm: of the backbone. "frozen": statistics fixed; in "torchvision" the norms' weights too. "group" is for
            ResNets.
        frozen_stages: None, or what is not trained: 0 the stem, 1 the stem and C2, ..., 4 all of the backbone.
        head_norm: norm of the convolutions in pyramid, 4conv1fc box head and mask head; None for a bias instead.
        box_head: "2fc" (default) or "4conv1fc".
        min_size: the shorter side is scaled to it, in training to one of them, drawn anew for each image.
        max_size: the longer side is not scaled beyond it.
        image_mean, image_std: of the pixels in 0..1, RGB.
        proposals: of the RPN at inference: per level before NMS, per image after it; (1000, 1000).
        train_proposals: the same in training; (2000, 2000), with "mmdet" (2000, 1000).
        rois_per_image: boxes drawn per image in training; 512.
        score_threshold, nms_threshold, detections_per_image: choice of detections; 100 (RetinaNet of torchvision 300).
        base_channels, groups, group_width: of a ResNet: channels of the stem (64), groups, channels per group in C2.
        fpn_channels, fc_channels, mask_channels: widths of pyramid, box head and mask head (256, 1024, 256).

    Raises:
        ValueError: a name or option that does not fit; the message says what would.

    Example:
        >>> model = create_detector("fasterrcnn_resnet18_fpn", num_classes=3, base_channels=8, fpn_channels=16)
        >>> model.backbone.body.layer4[0].conv1.in_channels
        32
    """
    given = {key: value for key, value in locals().items() if key not in ("name", "num_classes", "preset")}
    kind, trunk = parsed(name)
    _check(kind, trunk, given)
    whole("num_classes", num_classes)
    parts = PRESETS[errors.choice("preset", preset, tuple(PRESETS))]
    backbone = _backbone(kind, trunk, parts, given)
    transform = parts.transform(min_size, max_size, list(image_mean), list(image_std))  # type: ignore[arg-type]
    if kind == "retinanet":
        model = _retinanet(parts, backbone, num_classes, given)
        model.transform = transform
    else:
        heads = _roi_heads(kind, parts, num_classes, given)
        model = TwoStage(backbone, _rpn(parts, given), heads, transform, num_classes=num_classes)
    defaults = create_detector.__kwdefaults__ or {}
    chosen = {key: _plain(value) for key, value in given.items() if value != defaults[key]}
    task = "instances" if "mask" in kind else "detect"
    record.set_architecture(model, task, name, num_classes, {"preset": preset} | chosen)
    sizes = {"min_size": _plain(min_size), "max_size": max_size}
    record.set_preprocessing(model, sizes | {"mean": list(image_mean), "std": list(image_std), "channel_order": "RGB"})
    return model


def _backbone(kind: str, trunk: str, parts: Preset, given: dict[str, Any]) -> Backbone:
    dense = kind == "retinanet"
    width = given["fpn_channels"]
    fixed = given["norm"] == "frozen" and parts.fixed_statistics
    body = build_body(trunk, "batch" if fixed else given["norm"], _shape(trunk, given))
    return Backbone(
        body,
        first=1 if dense else 0,
        out_channels=width,
        extra=parts.p6p7(body.channels[-1], width) if dense else LastLevelMaxPool(),
        norm=_head_norm(given),
        frozen_stages=given["frozen_stages"],
        fixed_statistics=fixed,
    )


def _head_norm(given: dict[str, Any]) -> NormLayer | None:
    return None if given["head_norm"] is None else NORMS[given["head_norm"]]


def _roi_heads(kind: str, parts: Preset, num_classes: int, given: dict[str, Any]) -> RoIHeads | CascadeRoIHeads:
    cascade = kind.startswith("cascade")
    stages = list(zip(IOU_THRESHOLDS, DELTA_SCALES, strict=True))
    heads = []
    for iou, scales in stages if cascade else stages[:1]:
        head = _roi_head(parts, num_classes, given, iou=iou, class_agnostic=cascade)
        head.box_coder = parts.coder(tuple(1 / scale for scale in scales))  # type: ignore[arg-type]
        if "mask" in kind:
            _add_masks(head, parts, num_classes, given)
        heads.append(head)
    return CascadeRoIHeads(heads) if cascade else heads[0]


def _roi_head(parts: Preset, classes: int, given: dict[str, Any], *, iou: float, class_agnostic: bool) -> RoIHeads:
    width = given["fc_channels"] or 1024
    return parts.roi_heads(
        parts.roi_pool(7),
        build_box_head(given["box_head"] or "2fc", given["fpn_channels"], width, _head_norm(given)),
        BoxPredictor(width, classes, background_last=parts.background_last, class_agnostic=class_agnostic),
        fg_iou_thresh=iou,
        bg_iou_thresh=iou,
        batch_size_per_image=given["rois_per_image"] or 512,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=given["score_threshold"],
        nms_thresh=given["nms_threshold"],
        detections_per_img=given["detections_per_image"] or 100,
    )


def _add_masks(head: RoIHeads, parts: Preset, classes: int, given: dict[str, Any]) -> None:
    width = given["mask_channels"] or 256
    head.mask_roi_pool = parts.roi_pool(14)
    head.mask_head = MaskRCNNHeads(given["fpn_channels"], (width,) * 4, 1, norm_layer=_head_norm(given))
    last = parts.background_last
    head.mask_predictor = (MaskPredictor if last else MaskRCNNPredictor)(width, width, classes + (0 if last else 1))


def _rpn(parts: Preset, given: dict[str, Any]) -> RegionProposalNetwork:
    test, train = given["proposals"] or (1000, 1000), given["train_proposals"] or parts.train_proposals
    anchors = parts.anchors([[32.0], [64.0], [128.0], [256.0], [512.0]], [4, 8, 16, 32, 64])
    rpn = parts.rpn(
        anchors,
        RPNHead(given["fpn_channels"], anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": train[0], "testing": test[0]},
        post_nms_top_n={"training": train[1], "testing": test[1]},
        nms_thresh=0.7,
    )
    rpn.box_coder = parts.coder((1.0, 1.0, 1.0, 1.0))
    return rpn


def _retinanet(parts: Preset, backbone: Backbone, num_classes: int, given: dict[str, Any]) -> OneStage:
    sides = [[side * 2 ** (k / 3) for k in range(3)] for side in (32.0, 64.0, 128.0, 256.0, 512.0)]
    anchors = parts.anchors(sides, [8, 16, 32, 64, 128])
    rows = num_classes + parts.retinanet.first_label
    model = parts.retinanet(
        backbone,
        rows,
        anchor_generator=anchors,
        head=RetinaNetHead(backbone.out_channels, anchors.num_anchors_per_location()[0], rows),
        score_thresh=given["score_threshold"],
        nms_thresh=given["nms_threshold"],
        detections_per_img=given["detections_per_image"] or parts.retinanet_detections,
    )
    model.num_classes = num_classes
    model.box_coder = parts.coder((1.0, 1.0, 1.0, 1.0))
    model.head.regression_head.box_coder = model.box_coder
    return model


def _check(kind: str, trunk: str, given: dict[str, Any]) -> None:
    """Options of another kind of detector, and values that none takes."""
    lacking = {key: "has no RoI heads" for key in _TWO_STAGE if kind == "retinanet"}
    lacking |= {key: "has no masks" for key in _MASK if "mask" not in kind}
    lacking |= {key: f"has no torchvision ResNet but {trunk}" for key in _RESNET if trunk not in RESNETS}
    for key, reason in lacking.items():
        if given[key] is not None:
            raise GcnetError(f"{key}={given[key]!r}: a {kind} on {trunk} {reason}; leave {key} out")
    for key, allowed in (("norm", tuple(NORMS)), ("head_norm", (None, *NORMS)), ("box_head", (None, *BOX_HEADS))):
        errors.choice(key, given[key], allowed)
    if given["frozen_stages"] not in (None, 0, 1, 2, 3, 4):
        raise GcnetError(f"frozen_stages={given['frozen_stages']!r}: allowed are None and 0 (the stem) to 4 (up to C5)")
    if given["head_norm"] is not None and kind == "retinanet":
        raise GcnetError("head_norm: torchvision's RetinaNet has it in the pyramid alone; leave it out")
    for key in ("proposals", "train_proposals"):
        value = given[key]
        if value is not None and (len(value) != 2 or min(value) < 1):
            raise GcnetError(f"{key}={value!r}: expected two numbers from 1: per level before NMS, per image after it")
    for key in (*_RESNET, "fpn_channels", "fc_channels", "mask_channels", "rois_per_image"):
        if given[key] is not None:
            whole(key, given[key])


def _shape(trunk: str, given: dict[str, Any]) -> Shape | None:
    """The ResNet as it is asked for; the width of its groups follows `base_channels` unless it is given."""
    if trunk not in RESNETS:
        return None
    known = RESNETS[trunk]
    base = given["base_channels"] or 64
    width = given["group_width"] or known.group_width * base // 64
    if width < 1:
        raise GcnetError(
            f"base_channels={base} leaves no channel in the groups of {trunk}; give groups=... and group_width=... too"
        )
    return known._replace(groups=given["groups"] or known.groups, group_width=width, base_channels=base)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
