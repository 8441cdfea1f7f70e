"""What no tensor tells about an mmdet detector: from its config, else mmdet's default, which is listed as assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcnet.checkpoints.mmdet.plugins import Plugin, configured, only_in_training
from gcnet.errors import CheckpointError
from gcnet.models.detection.create import MEAN, STD

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


class Facts:
    """Answers from a config read as data.

    Args:
        config: The names that the config assigns; {} if there is no config.
        assumed: Where an answer that is a default is written down.
    """

    def __init__(self, config: Mapping[str, Any], assumed: list[str]) -> None:
        self._config = config
        model = config.get("model")
        self._model: Mapping[str, Any] = model if isinstance(model, Mapping) else {}
        self._assumed = assumed
        self.is_bgr = False

    def detector(self, kind: str) -> dict[str, Any]:
        """Arguments of `create_detector` that differ from its defaults.

        Raises:
            CheckpointError: settings that it cannot build, all of them.
        """
        self._refuse_others()
        found: dict[str, Any] = {}
        if self._ask("backbone.norm_eval", True, "norms with fixed statistics in training (norm_eval)"):
            found["norm"] = "frozen"
        frozen = self._ask("backbone.frozen_stages", 1, "frozen stages in training")
        if isinstance(frozen, int) and 0 <= frozen <= 4:
            found["frozen_stages"] = frozen
        found |= self._pixels() | self._size()
        rcnn = "" if kind == "retinanet" else "rcnn."
        found["score_threshold"] = float(self._test(f"{rcnn}score_thr", 0.05))
        nms = self._test(f"{rcnn}nms", {"type": "nms", "iou_threshold": 0.5})
        if not isinstance(nms, Mapping) or nms.get("type", "nms") != "nms":
            raise CheckpointError(f"its config chooses detections by {nms!r}; gcnet has plain NMS")
        found["nms_threshold"] = float(nms.get("iou_threshold", nms.get("iou_thr", 0.5)))
        found["detections_per_image"] = int(self._test(f"{rcnn}max_per_img", 100))
        if kind != "retinanet":
            after = self._value(self._tests(), "rpn.max_num")
            found["proposals"] = [
                int(self._test("rpn.nms_pre", 1000)),
                int(self._test("rpn.max_per_img", 1000) if after is _ABSENT else after),
            ]
        defaults = {"score_threshold": 0.05, "nms_threshold": 0.5, "detections_per_image": 100}
        defaults |= {"proposals": [1000, 1000], "min_size": 800, "max_size": 1333}
        defaults |= {"image_mean": list(MEAN), "image_std": list(STD)}
        return {key: value for key, value in found.items() if defaults.get(key) != value}

    def classes(self) -> list[str] | None:
        """Class names that the config itself gives to its data set."""
        for path in ("metainfo.classes", "classes", "test_dataloader.dataset.metainfo.classes", "data.test.classes"):
            names = self._value(self._config, path)
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
                return list(names)
        return None

    def modulated(self, offsets: int) -> bool:
        """Whether `offsets` channels of offsets are those of DCN v2 (27 per group), not v1 (18)."""
        if (offsets % 18 == 0) != (offsets % 27 == 0):
            return offsets % 27 == 0
        dcn = self._value(self._model, "backbone.dcn")
        if isinstance(dcn, Mapping):
            return bool(dcn.get("modulated", dcn.get("type") == "DCNv2"))
        self._assumed.append(f"deformable convolutions of v1: {offsets} offsets fit v1 and v2")
        return False

    def plugin(self, stage: str, position: str, kind: str) -> Plugin | None:
        """What the config says about the blocks of one kind at one position of a stage; None if nothing."""
        for plugin in configured(self._config):
            if (plugin.stage, plugin.position, plugin.kind) == (stage, position, kind):
                return plugin
        return None

    def assume(self, words: str, value: Any) -> Any:
        """The value, once it is written down that nothing told it."""
        note = f"{words}: {value}"
        if note not in self._assumed:
            self._assumed.append(note)
        return value

    def _pixels(self) -> dict[str, Any]:
        where = self._value(self._model, "data_preprocessor")
        where = self._value(self._config, "img_norm_cfg") if where is _ABSENT else where
        if not isinstance(where, Mapping) or "mean" not in where or "std" not in where:
            self.assume("normalisation of the pixels", "RGB, ImageNet's mean and deviation")
            return {}
        mean, std = ([round(float(v) / 255, 10) for v in where[key]] for key in ("mean", "std"))
        self.is_bgr = not where.get("bgr_to_rgb", where.get("to_rgb", False))
        step = -1 if self.is_bgr else 1
        return {"image_mean": mean[::step], "image_std": std[::step]}

    def _size(self) -> dict[str, Any]:
        for step in _tables_in(self._config.get("test_pipeline")):
            scale = step.get("scale", step.get("img_scale"))
            if isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(n, int) for n in scale):
                return {"min_size": min(scale), "max_size": max(scale)}
        self.assume("size of images", "shorter side 800, longer side at most 1333")
        return {}

    def _refuse_others(self) -> None:
        wrong = []
        for path, allowed in _FIXED:
            value = self._value(self._model, path)
            value = list(value) if isinstance(value, tuple) else value
            if value is not _ABSENT and value is not None and value not in allowed:
                wrong.append(f"{path}={value!r} (gcnet: {allowed[0]!r})")
        if wrong:
            raise CheckpointError(f"its config has settings that gcnet does not build: {'; '.join(wrong)}")
        for name in only_in_training(self._config):
            self._assumed.append(f"without {name}, which acts in training only")
        if self._value(self._model, "backbone.style") is _ABSENT:
            self.assume("stride in the 3x3 convolution (style)", "pytorch")

    def _tests(self) -> Mapping[str, Any]:
        for where in (self._model.get("test_cfg"), self._config.get("test_cfg")):
            if isinstance(where, Mapping) and where.keys() & {"rpn", "rcnn", "nms_pre"}:
                return where
        return {}

    def _test(self, path: str, default: Any) -> Any:
        value = self._value(self._tests(), path)
        return self.assume(f"test_cfg.{path}", default) if value is _ABSENT else value

    def _ask(self, path: str, default: Any, words: str) -> Any:
        value = self._value(self._model, path)
        return self.assume(words, default) if value is _ABSENT else value

    @staticmethod
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
