"""What no tensor tells about an mmdet detector: from its config, else mmdet's default, which is listed as assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcnet.checkpoints.content import names_in, table
from gcnet.checkpoints.mmdet.plugins import only_in_training
from gcnet.errors import CheckpointError
from gcnet.models.preprocessing import MEAN, STD

_ABSENT = object()

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

    Args:
        config: The names that the config assigns; {} if there is no config.
        kind: Of detector, as in its name.

    Raises:
        CheckpointError: settings that it cannot build, all of them.
    """
    model, tests = table(config.get("model")), _tests(config)
    rcnn = "" if kind == "retinanet" else "rcnn."
    left_out = _refuse_others(config)
    training, assumed = _asked(
        norm_eval=(model, "backbone.norm_eval", True, "norms with fixed statistics in training (norm_eval)"),
        frozen_stages=(model, "backbone.frozen_stages", 1, "frozen stages in training"),
    )
    (pixels, assumed_pixels), (size, assumed_size) = _pixels(config), _size(config)
    chosen, assumed_tests = _asked(
        **{
            key: (tests, rcnn + key, default, f"test_cfg.{rcnn}{key}")
            for key, default in (
                ("score_thr", 0.05),
                ("nms", {"type": "nms", "iou_threshold": 0.5}),
                ("max_per_img", 100),
            )
        }
    )
    nms = chosen["nms"]
    if not isinstance(nms, Mapping) or nms.get("type", "nms") != "nms":
        raise CheckpointError(f"its config chooses detections by {nms!r}; gcnet has plain NMS")
    found = pixels | size
    found |= {"norm": "frozen"} if training["norm_eval"] else {}
    frozen = training["frozen_stages"]
    found |= {"frozen_stages": frozen} if isinstance(frozen, int) and 0 <= frozen <= 4 else {}
    found["score_threshold"] = float(chosen["score_thr"])
    found["nms_threshold"] = float(nms.get("iou_threshold", nms.get("iou_thr", 0.5)))
    found["detections_per_image"] = int(chosen["max_per_img"])
    assumed = [*left_out, *assumed, *assumed_pixels, *assumed_size, *assumed_tests]
    if kind != "retinanet":
        last = "rpn.max_num" if _value(tests, "rpn.max_num") is not _ABSENT else "rpn.max_per_img"
        proposals, lines = _asked(
            before=(tests, "rpn.nms_pre", 1000, "test_cfg.rpn.nms_pre"), after=(tests, last, 1000, f"test_cfg.{last}")
        )
        found["proposals"] = [int(proposals["before"]), int(proposals["after"])]
        assumed += lines
    return {key: value for key, value in found.items() if _DEFAULTS.get(key) != value}, assumed


def classes(config: Mapping[str, Any]) -> list[str] | None:
    """Class names that the config itself gives to its data set."""
    paths = ("metainfo.classes", "classes", "test_dataloader.dataset.metainfo.classes", "data.test.classes")
    return next((names for path in paths if (names := names_in(_value(config, path)))), None)


def is_bgr(config: Mapping[str, Any]) -> bool:
    """Whether the network takes BGR images."""
    where = _normalisation(config)
    return where is not None and not where.get("bgr_to_rgb", where.get("to_rgb", False))


def is_modulated(config: Mapping[str, Any], offsets: int) -> tuple[bool, list[str]]:
    """Whether `offsets` channels of offsets are those of DCN v2 (27 per group), not v1 (18); what is assumed for it."""
    if (offsets % 18 == 0) != (offsets % 27 == 0):
        return offsets % 27 == 0, []
    dcn = _value(config, "model.backbone.dcn")
    if isinstance(dcn, Mapping):
        return bool(dcn.get("modulated", dcn.get("type") == "DCNv2")), []
    return False, [f"deformable convolutions of v1: {offsets} offsets fit v1 and v2"]


def _normalisation(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    where = _value(config, "model.data_preprocessor")
    where = config.get("img_norm_cfg") if where is _ABSENT else where
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
    wrong = []
    for path, allowed in _FIXED:
        value = _value(model, path)
        value = list(value) if isinstance(value, tuple) else value
        if value is not _ABSENT and value is not None and value not in allowed:
            wrong.append(f"{path}={value!r} (gcnet: {allowed[0]!r})")
    if wrong:
        raise CheckpointError(f"its config has settings that gcnet does not build: {'; '.join(wrong)}")
    said = [f"without {name}, which acts in training only" for name in only_in_training(config)]
    if _value(model, "backbone.style") is _ABSENT:
        said.append("stride in the 3x3 convolution (style): pytorch")
    return said


def _tests(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for where in (table(config.get("model")).get("test_cfg"), config.get("test_cfg")):
        if isinstance(where, Mapping) and where.keys() & {"rpn", "rcnn", "nms_pre"}:
            return where
    return {}


def _asked(**questions: tuple[Any, str, Any, str]) -> tuple[dict[str, Any], list[str]]:
    """The answers to questions (where to look, the path there, mmdet's default, in words); a line per default taken."""
    found = {key: _value(where, path) for key, (where, path, _, _) in questions.items()}
    absent = [key for key, value in found.items() if value is _ABSENT]
    defaults = {key: questions[key][2] for key in absent}
    return found | defaults, [f"{questions[key][3]}: {questions[key][2]}" for key in absent]


def _value(where: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(where, Mapping) or key not in where:
            return _ABSENT
        where = where[key]
    return where


def _tables_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings in a nested value."""
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _tables_in(item)
