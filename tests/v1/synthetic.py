"""What make.py and the tests share: data, nets and weights that are made anew instead of stored. Public names only.

NumPy's RandomState never changes what a seed gives, so values are the same in every version; BMP files have a size that
depends on width and height alone, so the fingerprint of the data is the same too.
"""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers import GlobalContext, NonLocalAttn
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

LONGEST = 4  # tensors with more numbers than this are made from their names


def seeded(name: str, shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values for a tensor of that name: weights that keep the size of what passes, positive variances."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    values = draw.standard_normal(tuple(shape))
    if name.endswith("running_var"):
        values = 0.5 + draw.uniform(size=tuple(shape))
    elif name.endswith("exp_avg_sq"):
        values = 1e-4 * (0.5 + draw.uniform(size=tuple(shape)))
    elif name.endswith(("exp_avg", "momentum_buffer")):
        values = 1e-3 * values
    elif len(shape) > 1:
        values = values / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1 + 0.2 * values
    else:
        values = 0.2 * values
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(dtype)


def fill(model: nn.Module) -> nn.Module:
    """The model in eval mode, with seeded weights and statistics."""
    state = model.state_dict()
    model.load_state_dict({k: seeded(k, v.shape) if v.is_floating_point() else v for k, v in state.items()})
    return model.eval()


def pixels(name: str, shape: Any) -> Tensor:
    """An input: numbers from 0 to 1."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(draw.uniform(size=tuple(shape)).astype(np.float32))


def net(name: str) -> nn.Module:
    """Nets that `create_model` does not know, for `load_checkpoint(path, architecture=...)`."""
    if name == "sequential":
        return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    if name == "attentive":  # blocks of timm and torchvision, which `accelerate` replaces
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            GlobalContext(16, rd_ratio=0.5, rd_divisor=1),
            SqueezeExcitation(16, 4),
            NonLocalAttn(16, rd_ratio=0.5, rd_divisor=1),
        )
    unit, channels = {"basic": (BasicBlock, (4, 4, 16, 8)), "bottleneck": (Bottleneck, (16, 16, 32, 32))}[name]
    return ResNet(unit, (1, 1, 2, 1), num_classes=3, stem_type="deep", stem_width=4, channels=channels)


def rebuild(recipe: Path, target: Path) -> Path:
    """The safetensors file that a JSON file tells of: its header as it was written, tensors made from their names."""
    told = json.loads(recipe.read_text(encoding="utf-8"))
    tensors = {}
    for name, (dtype, shape) in told["tensors"].items():
        kind = getattr(torch, dtype)
        tensors[name] = seeded(name, shape, kind) if kind.is_floating_point else torch.zeros(shape, dtype=kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, {"format": "pt", "gcnet": told["header"]})
    return target


def hollow(content: Any) -> Any:
    """The content of a Lightning checkpoint whose long tensors are one zero each, seen in their shape."""
    zero = torch.zeros(1)

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            return type(value)((key, visit(item)) for key, item in value.items())
        if isinstance(value, list | tuple):
            return type(value)(visit(item) for item in value)
        long = isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel() > LONGEST
        return zero.expand(value.shape) if long else value

    return visit(content)


def refill(content: Any, name: str = "") -> Any:
    """What `hollow` emptied, filled with seeded values."""
    if isinstance(content, dict):
        return type(content)((key, refill(item, f"{name}.{key}")) for key, item in content.items())
    if isinstance(content, list | tuple):
        return type(content)(refill(item, f"{name}.{index}") for index, item in enumerate(content))
    if isinstance(content, Tensor) and content.untyped_storage().nbytes() < content.nbytes:
        return seeded(name, content.shape)
    return content


def copy_run(source: Path, target: Path) -> Path:
    """A run as version 0.1.0 left it: stored files as they are, hollow and described ones filled."""
    for path in sorted(
        source.rglob("*"), key=lambda path: path.name != "model.json"
    ):  # figures are younger than weights
        goal = target / path.relative_to(source)
        goal.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "model.json":
            rebuild(path, goal.with_suffix(".safetensors"))
        elif path.name == "expected.json" or path.is_dir():
            continue
        elif path.suffix == ".ckpt":
            torch.save(refill(torch.load(path, weights_only=True)), goal)
        else:
            goal.write_bytes(path.read_bytes())
    return target


def write_photos(root: Path) -> Path:
    """8 + 4 + 4 pictures of 40x40 in train, val and test; reddish and bluish."""
    draw = np.random.RandomState(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for channel, name in enumerate(("red", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                values = draw.randint(0, 120, (40, 40, 3)).astype(np.uint8)
                values[..., 2 * channel] += 120
                Image.fromarray(values).save(folder / f"{index}.bmp")
    return root


def write_objects(root: Path) -> Path:
    """A COCO folder of 6 + 2 pictures of 64x64, each with a red and a blue rectangle."""
    draw = np.random.RandomState(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", 6), ("val", 2)):
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            values = draw.randint(0, 60, (64, 64, 3)).astype(np.uint8)
            for label in (0, 1):
                x, y, w, h = 4 + 28 * label, int(draw.randint(4, 24)), 24, int(draw.randint(16, 32))
                values[y : y + h, x : x + w, 2 * label] = 250
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": label + 1,
                        "iscrowd": 0,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "segmentation": [corners],
                    }
                )
            name = f"{split}{index}.bmp"
            Image.fromarray(values).save(root / split / name)
            images.append({"id": index + 1, "file_name": name, "width": 64, "height": 64})
        names = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
        content = {"images": images, "annotations": annotations, "categories": names}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def some_of(tensors: Any) -> dict[str, list[Any]]:
    """A few numbers that tell tensors apart: of each its shape, up to four values and the 2-norm; of a tree by path."""
    found: dict[str, list[Any]] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, Tensor):
            flat = value.detach().double().flatten()
            chosen = [*flat[:: max(1, len(flat) // 4)][:4].tolist(), flat.norm().item()]
            found[path] = [list(value.shape), *(float(f"{number:.8g}") for number in chosen)]
        else:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                visit(item, f"{path}.{key}".strip("."))

    visit(tensors, "")
    return found


def outputs(model: nn.Module, name: str, shape: Any) -> dict[str, Any]:
    """`some_of` what a model computes of `pixels(name, shape)`; of a detector the pyramid and the best scores."""
    x = pixels(name, shape)
    with torch.inference_mode():
        if not hasattr(model, "backbone"):
            return some_of(model(x))
        found = model(list(x))  # which boxes are kept hangs on the last bit of scores; the best score does not
        best = torch.tensor([entry["scores"].max().item() if len(entry["scores"]) else 0.0 for entry in found])
        return some_of({"pyramid": model.backbone(x), "best": best})
