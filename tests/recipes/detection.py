"""Tiny annotated photographs, bright discs of two colours, and settings that train a tiny Mask R-CNN on them."""

import json

import numpy as np
from PIL import Image

from gcnet.data.detection.masks import encode_mask
from gcnet.tasks.detection.recipe import detection_settings

TINY = {
    "base_channels": 8,
    "fpn_channels": 16,
    "fc_channels": 16,
    "mask_channels": 8,
    "rois_per_image": 16,
    "train_proposals": [60, 20],
    "proposals": [60, 20],
}


def write_discs(root, counts=(("train", 6), ("val", 2))):
    """A COCO folder of 64x64 images; every third one stands (48 wide)."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in counts:
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            width, height = (48, 64) if index % 3 == 2 else (64, 64)
            pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            y, x = np.mgrid[:height, :width]
            for label in (0, 1):
                radius = rng.integers(9, 14)
                mask = (y - rng.integers(16, 48)) ** 2 + (x - (14 + 22 * label)) ** 2 < radius**2
                pixels[mask, 2 * label] = 250
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
                entry = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1, "iscrowd": 0}
                runs = encode_mask(mask)
                annotations.append(
                    entry | {"bbox": [int(v) for v in box], "area": int(mask.sum()), "segmentation": runs}
                )
            name = f"{split}{index}.png"
            Image.fromarray(pixels).save(root / split / name)
            images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def tiny_settings(data, runs, **changes):
    values = {
        "model": "maskrcnn_resnet18_fpn",
        "block": "gc",
        "stages": ("c4",),
        "block_options": {"reduction": 4},
        "detector_options": TINY,
        "image_size": 64,
        "epochs": 2,
        "batch_size": 2,
        "lr": 0.01,
        "warmup_steps": 2,
        "runs": runs,
    } | changes
    return detection_settings(str(data), **values)
