"""What no tensor tells about an mmdet detector: from its config, else mmdet's default, which is listed as assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcnet.checkpoints.content import ABSENT, names_in, other_settings, table, value_at
from gcnet.checkpoints.mmdet.plugins import only_in_training
from gcnet.errors import CheckpointError
from gcnet.models.preprocessing import MEAN, STD

# Settings with a single value that gcnet builds: (places in the model's config, allowed values).
_FIXED: list[tuple[str, tuple[Any, ...]]] = [
    ("backbone.style", ("pytorch",)),
    ("backbone.strides", ([1, 2, 2, 2],)),
    ("backbone.dilations", ([1, 1, 1, 1],)),
    ("backbone.avg_down", (False,)),
    ("backbone.deep_stem", (False,)),
    ("backbone.dcn.fallback_on_stride", (False,)),
    ("neck.type", ("FPN",)),
    ("neck.relu_before_extra_convs", (False,)),
    ("neck.upsample_cfg.mode", ("nearest",)),
    ("rpn_head.anchor_generator.scales", ([8],)),
    ("rpn_head.anchor_generator.ratios", ([0.5, 1.0, 2.0],)),
    ("rpn_head.anchor_generator.strides", ([4, 8, 16, 32, 64],)),
    ("rpn_head.anchor_scales", ([8],)),
    ("rpn_head.anchor_ratios", ([0.5, 1.0, 2.0],)),
    ("bbox_head.anchor_generator.octave_base_scale", (4,)),
    ("bbox_head.anchor_generator.scales_per_octave", (3,)),
    ("bbox_head.anchor_generator.ratios", ([0.5, 1.0, 2.0],)),
    ("bbox_head.anchor_generator.strides", ([8, 16, 32, 64, 128],)),
    ("roi_head.bbox_roi_extractor.roi_layer.output_size", (7,)),
    ("roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", (0,)),
    ("roi_head.bbox_roi_extractor.roi_layer.aligned", (True,)),
    ("roi_head.bbox_head.bbox_coder.target_stds", ([0.1, 0.1, 0.2, 0.2],)),
    ("roi_head.mask_roi_extractor.roi_layer.output_size", (14,)),
]
_DEFAULTS: dict[str, Any] = {  # of `create_detector`, which are left out of a record
    "score_threshold": 0.05,
    "nms_threshold": 0.5,
    "detections_per_image": 100,
    "proposals": [1000, 1000],
    "min_size": 800,
    "max_size": 1333,
    "image_mean": list(MEAN),
    "image_std": list(STD),
}


def of_detector(config: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], list[str]]:
    """Arguments of `create_detector` that differ from its defaults, and what is assumed for want of a config.

    Raises:
        CheckpointError: settings that it cannot build, all of them.
    """
    model, tests = table(config.get("model")), _tests(config)
    rcnn = "" if kind == "retinanet" else "rcnn."
    left_out = _refuse_others(config)
    (fixed, frozen), assumed = _asked(
        (model, "backbone.norm_eval", True, "norms with fixed statistics in training (norm_eval)"),
        (model, "backbone.frozen_stages", 1, "frozen stages in training"),
    )
    (pixels, assumed_pixels), (size, assumed_size) = _pixels(config), _size(config)
    (score, nms, count), assumed_tests = _asked(
        (tests, f"{rcnn}score_thr", 0.05, f"test_cfg.{rcnn}score_thr"),
        (tests, f"{rcnn}nms", {"type": "nms", "iou_threshold": 0.5}, f"test_cfg.{rcnn}nms"),
        (tests, f"{rcnn}max_per_img", 100, f"test_cfg.{rcnn}max_per_img"),
    )
    if not isinstance(nms, Mapping) or nms.get("type", "nms") != "nms":
        raise CheckpointError(f"its config chooses detections by {nms!r}; gcnet has plain NMS")
    found = pixels | size
    found |= {"norm": "frozen"} if fixed else {}
    found |= {"frozen_stages": frozen} if isinstance(frozen, int) and 0 <= frozen <= 4 else {}
    found["score_threshold"] = float(score)
    found["nms_threshold"] = float(nms.get("iou_threshold", nms.get("iou_thr", 0.5)))
    found["detections_per_image"] = int(count)
    assumed = [*left_out, *assumed, *assumed_pixels, *assumed_size, *assumed_tests]
    if kind != "retinanet":
        last = "rpn.max_num" if value_at(tests, "rpn.max_num") is not ABSENT else "rpn.max_per_img"
        proposals, lines = _asked(
            (tests, "rpn.nms_pre", 1000, "test_cfg.rpn.nms_pre"), (tests, last, 1000, f"test_cfg.{last}")
        )
        found["proposals"] = [int(number) for number in proposals]
        assumed += lines
    return {key: value for key, value in found.items() if _DEFAULTS.get(key) != value}, assumed


def classes(config: Mapping[str, Any]) -> list[str] | None:
    """Class names that the config itself gives to its data set."""
    paths = ("metainfo.classes", "classes", "test_dataloader.dataset.metainfo.classes", "data.test.classes")
    return next((names for path in paths if (names := names_in(value_at(config, path)))), None)


def is_bgr(config: Mapping[str, Any]) -> bool:
    """Whether the network takes BGR images."""
    where = _normalisation(config)
    return where is not None and not where.get("bgr_to_rgb", where.get("to_rgb", False))


def is_modulated(config: Mapping[str, Any], offsets: int) -> tuple[bool, list[str]]:
    """Whether `offsets` channels of offsets are those of DCN v2 (27 per group), not v1 (18); what is assumed for it."""
    if (offsets % 18 == 0) != (offsets % 27 == 0):
        return offsets % 27 == 0, []
    dcn = value_at(config, "model.backbone.dcn")
    if isinstance(dcn, Mapping):
        return bool(dcn.get("modulated", dcn.get("type") == "DCNv2")), []
    return False, [f"deformable convolutions of v1: {offsets} offsets fit v1 and v2"]


def _normalisation(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    where = value_at(config, "model.data_preprocessor")
    where = config.get("img_norm_cfg") if where is ABSENT else where
    return where if isinstance(where, Mapping) and "mean" in where and "std" in where else None


def _pixels(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    where = _normalisation(config)
    if where is None:
        return {}, ["normalisation of the pixels: RGB, ImageNet's mean and deviation"]
    mean, std = ([round(float(v) / 255, 10) for v in where[key]] for key in ("mean", "std"))
    step = -1 if is_bgr(config) else 1
    return {"image_mean": mean[::step], "image_std": std[::step]}, []


def _size(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    for step in _tables_in(config.get("test_pipeline")):
        scale = step.get("scale", step.get("img_scale"))
        if isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(n, int) for n in scale):
            return {"min_size": min(scale), "max_size": max(scale)}, []
    return {}, ["size of images: shorter side 800, longer side at most 1333"]


def _refuse_others(config: Mapping[str, Any]) -> list[str]:
    """Raises for what gcnet does not build; says what is left out or assumed."""
    model = config.get("model")
    if wrong := other_settings(model, _FIXED):
        raise CheckpointError(f"its config has settings that gcnet does not build: {wrong}")
    said = [f"without {name}, which acts in training only" for name in only_in_training(config)]
    if value_at(model, "backbone.style") is ABSENT:
        said.append("stride in the 3x3 convolution (style): pytorch")
    return said


def _tests(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for where in (table(config.get("model")).get("test_cfg"), config.get("test_cfg")):
        if isinstance(where, Mapping) and where.keys() & {"rpn", "rcnn", "nms_pre"}:
            return where
    return {}


def _asked(*questions: tuple[Any, str, Any, str]) -> tuple[list[Any], list[str]]:
    """The answers to questions (where to look, the path there, mmdet's default, in words); a line per default taken."""
    answers, lines = [], []
    for where, path, default, words in questions:
        value = value_at(where, path)
        answers.append(default if value is ABSENT else value)
        lines += [f"{words}: {default}"] if value is ABSENT else []
    return answers, lines


def _tables_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings in a nested value."""
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _tables_in(item)
