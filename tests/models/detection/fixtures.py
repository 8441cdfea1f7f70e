"""The small detectors that mmdetection itself has run: built with our names, filled with its weights."""

import json
from pathlib import Path
from typing import Any

import torch

import gcnet
from gcnet.checkpoints.mmdet.names import translate
from gcnet.files.unpickle import unpickle
from gcnet.models.detection import create_detector

NAMES = (
    "a_mask_r50_gcb_r16",
    "b_mask_r50_syncbn_gcb_r4",
    "c_mask_x101_syncbn_gcb_r16",
    "d_cascade_x101_syncbn_gcb_r16",
    "e_cascade_x101_dconv_gcb_r16",
    "f_retinanet_r50_gcb_r16",
    "g_mask_r50_nonlocal",
)
KINDS = {"MaskRCNN": "maskrcnn", "CascadeRCNN": "cascade_maskrcnn", "RetinaNet": "retinanet"}


def build(folder: Path, **options: Any) -> torch.nn.Module:
    """The model of a fixture's folder with its weights, in evaluation mode."""
    config = json.loads((folder / "config.json").read_text())
    body, kind = config["backbone"], KINDS[config["type"]]
    trunk = f"resnext{body['depth']}_32x4d" if body["type"] == "ResNeXt" else f"resnet{body['depth']}"
    if body["type"] == "ResNeXt":
        options |= {"groups": body["groups"], "group_width": body["base_width"]}
    test = config["test_cfg"]
    if kind != "retinanet":
        options |= {"proposals": (test["rpn"]["nms_pre"], test["rpn"]["max_per_img"]), "fc_channels": 32}
        options["mask_channels"] = 16
        test = test["rcnn"]
    model = create_detector(
        f"{kind}_{trunk}_fpn",
        num_classes=5,
        preset="mmdet",
        norm="sync" if body["norm_cfg"]["type"] == "SyncBN" else "batch",
        base_channels=body["base_channels"],
        fpn_channels=config["neck"]["out_channels"],
        score_threshold=test["score_thr"],
        nms_threshold=test["nms"]["iou_threshold"],
        detections_per_image=test["max_per_img"],
        **options,
    )
    if "dcn" in body:
        model = gcnet.deform(model, stages=_stages(body["stage_with_dcn"]))
    for plugin in body["plugins"]:
        cfg = plugin["cfg"]
        if cfg["type"] == "ContextBlock":
            model = gcnet.insert(model, "gc", stages=_stages(plugin["stages"]), reduction=round(1 / cfg["ratio"]))
        else:
            inner = body["base_channels"] * 16 // cfg["reduction"]
            block = {"pairwise": cfg["mode"], "reduction": cfg["reduction"], "scale": inner**-0.5}
            model = gcnet.insert(model, "nl", stages=_stages(plugin["stages"]), where="all", **block)
    state = translate(unpickle(folder / "checkpoint.pth")["state_dict"])
    model.load_state_dict(state)
    return model.eval()


def _stages(flags: list[bool]) -> list[str]:
    return [f"c{i + 2}" for i, flag in enumerate(flags) if flag]
