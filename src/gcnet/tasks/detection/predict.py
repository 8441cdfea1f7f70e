"""`predict` for detectors: a picture with boxes, masks and scores, and a JSON file, for every image."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from gcnet.data.images import read_image
from gcnet.errors import ImageError, SettingsError
from gcnet.files.atomic import write_atomically, write_text
from gcnet.report.attention import NO_MAP, attention_maps, draw_attention, last_of_stages
from gcnet.tasks.detection.draw import draw_objects
from gcnet.tasks.detection.module import MASK_THRESHOLD, as_results


@torch.inference_mode()
def predict_objects(
    model: nn.Module,
    paths: Sequence[Path],
    *,
    classes: Sequence[str] | None,
    out: Path | None,
    threshold: float,
    show_attention: bool,
    progress: bool,
) -> list[dict[str, Any]]:
    """The objects in every image; see `gcnet.recipes.predict`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.eval().to(device)
    names = file_names(paths)
    results: list[dict[str, Any]] = []
    turn: Any = zip(paths, names, strict=True)
    if progress and sys.stdout.isatty():
        turn = track(list(turn), "predicting", transient=True)
    for path, name in turn:
        entry: dict[str, Any] = {"path": str(path), "width": None, "height": None, "objects": [], "error": None}
        results.append(entry)
        try:
            pixels = pil_to_tensor(read_image(path))
        except ImageError as error:
            entry["error"] = error.reason
            continue
        entry["height"], entry["width"] = pixels.shape[-2:]
        with attention_maps(model) if show_attention else nullcontext({}) as maps:
            found = model([pixels.to(device) / 255])[0]
        if show_attention and not maps:
            raise SettingsError(NO_MAP)
        kept = {key: value[found["scores"] >= threshold].cpu() for key, value in found.items()}
        entry["objects"] = _objects(kept, classes)
        if out is not None:
            _draw(out / f"{name}.png", pixels, kept, entry["objects"])
            if show_attention:
                _draw_attention(out / f"{name}.attention.png", pixels, maps, model)
            write_text(out / f"{name}.json", json.dumps(entry, indent=2) + "\n")
    return results


def _objects(found: dict[str, Tensor], classes: Sequence[str] | None) -> list[dict[str, Any]]:
    objects = []
    for result in as_results(0, found):
        x, y, width, height = result["bbox"]
        label = result["category_id"] - 1
        entry = {
            "class": classes[label] if classes is not None else str(label),
            "score": result["score"],
            "box": [x, y, x + width, y + height],
        }
        if "segmentation" in result:
            entry["mask"] = result["segmentation"]
        objects.append(entry)
    return objects


def _draw(file: Path, pixels: Tensor, found: dict[str, Tensor], objects: list[dict[str, Any]]) -> None:
    texts = [f"{entry['class']} {entry['score']:.2f}" for entry in objects]
    masks = found["masks"][:, 0] >= MASK_THRESHOLD if "masks" in found else None
    write_picture(file, draw_objects(pixels, found["boxes"], texts, masks))


def _draw_attention(file: Path, pixels: Tensor, maps: dict[str, Tensor], model: nn.Module) -> None:
    """The map of each stage's last block; the network saw the image resized, and padded at the right and bottom."""
    transform: Any = model.transform
    transformed, _ = transform([pixels.to(next(model.parameters()).device) / 255])
    (height, width), (full_height, full_width) = transformed.image_sizes[0], transformed.tensors.shape[-2:]
    share = height / full_height, width / full_width
    first = {name.removeprefix("backbone.body."): map_[0] for name, map_ in last_of_stages(maps).items()}
    write_picture(file, draw_attention(pixels, first, share))


def write_picture(file: Path, image: Tensor) -> None:
    """uint8 (3, H, W) as PNG."""
    picture: Image.Image = to_pil_image(image)
    write_atomically(file, lambda target: picture.save(target, format="PNG"))


def file_names(paths: Sequence[Path]) -> list[str]:
    """Names for the files written: the images' own without extension, numbered where two have the same."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
