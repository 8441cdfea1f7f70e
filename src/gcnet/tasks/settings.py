"""Every setting of one training run, in one frozen dataclass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from gcnet.errors import SettingsError

DETECTION = ("detect", "segment")
COUNTS = {"epochs": 1, "batch_size": 1, "accumulate": 1, "devices": 1, "nodes": 1} | dict.fromkeys(
    ("workers", "seed", "warmup_steps", "save_every"), 0
)
# What only one kind of task has, with the value that says nothing.
CLASSIFIER_ONLY: dict[str, Any] = {"label_smoothing": 0.0, "mixup": 0.0, "cache": False}
DETECTOR_ONLY: dict[str, Any] = {
    "deform": None,
    "detector_options": {},
    "scales": None,
    "photometric": False,
    "strict": False,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides one run; saved as `settings.json` in the run's folder.

    `detection_settings` has the defaults for the tasks detect and segment.

    Args:
        data: a folder or CSV file of images; for detect and segment a folder that `gcnet.data.load_detection` reads;
            for scenes "cue", "dial-1", "dial-2", "dial-3", "mirror" or "twice" (`gcnet.scenes.draw`), of clothes
            "cue/fashion" and so on.
        weights: None, "imagenet" or a file, as in `gcnet.create_model`.
        stages, at, where, position, block_options: as in `gcnet.insert`.
        deform: stages whose 3x3 convolutions become deformable, as in `gcnet.deform`; detectors only.
        detector_options: further arguments of `gcnet.models.detection.create_detector`, such as norm, frozen_stages.
        image_size: side of the square input in pixels; None for the size that the model was published with. Of a
            detector the short side (None: 800); the long side is at most 5/3 of it.
        scales: short sides of which a training image of a detector gets one at random; None for `image_size` alone.
        photometric: change colours at random; detectors only.
        strict: refuse faulty annotations instead of leaving them out; detectors only.
        accumulate: batches whose gradients are added up for one step.
        optimizer, lr, weight_decay, schedule, warmup_epochs, warmup_steps, clip_norm, block_lr: see
            `gcnet.tasks.Optimisation`.
        ema: decay of an exponential moving average of the weights, which is then validated and kept; None for none.
        mixup: alpha of mixup; 0 turns it off.
        seed: decides initialisation, data order and augmentation; the same for every block.
        devices: processes of a machine that train together, one per GPU where there are GPUs.
        nodes: machines that train together; torchrun or SLURM starts a process for each device of each.
        save_every: steps between further writings of the last checkpoint, for epochs that take hours; 0 for none.
        workers: processes that read images; the result does not depend on it.
        cache: keep decoded images in memory.
        name, runs: the run is the folder `runs/name`.

    Raises:
        SettingsError: a value that is not allowed, by name.
    """

    data: str
    task: Literal["classify", "detect", "segment", "scenes"] = "classify"
    model: str = "resnet50"
    weights: str | None = None
    block: str | None = None
    stages: tuple[str, ...] | None = None
    at: str | None = None
    where: str | None = None
    position: str | None = None
    block_options: Mapping[str, Any] = field(default_factory=dict)
    deform: tuple[str, ...] | None = None
    detector_options: Mapping[str, Any] = field(default_factory=dict)

    epochs: int = 30
    batch_size: int = 32
    image_size: int | None = None
    scales: tuple[int, ...] | None = None
    photometric: bool = False
    strict: bool = False
    accumulate: int = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: Literal["cosine", "one_cycle", "steps", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    warmup_steps: int = 0
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    block_lr: float = 1.0
    ema: float | None = None
    mixup: float = 0.0

    seed: int = 0
    devices: int = 1
    nodes: int = 1
    save_every: int = 0
    workers: int = 0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    cache: bool = False
    name: str = "run"
    runs: Path = Path("runs")

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("task", "optimizer", "schedule", "precision"):
            allowed = get_args(hints[name])
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name}={getattr(self, name)!r}: allowed are {', '.join(map(repr, allowed))}")
        for name, lowest in COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise SettingsError(f"{name}={value!r}: allowed are whole numbers from {lowest}")
        if self.image_size is not None and (not isinstance(self.image_size, int) or self.image_size < 8):
            raise SettingsError(f"image_size={self.image_size!r}: allowed are whole numbers of pixels from 8, or None")
        for name in ("weight_decay", "warmup_epochs", "clip_norm", "block_lr", "mixup"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingsError(f"{name}={getattr(self, name)!r}: allowed are numbers from 0")
        if not 0 < self.lr < float("inf"):
            raise SettingsError(f"lr={self.lr!r}: allowed are numbers above 0")
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"label_smoothing={self.label_smoothing!r}: allowed are numbers from 0 to below 1")
        if self.ema is not None and not 0 < self.ema < 1:
            raise SettingsError(f"ema={self.ema!r}: allowed are numbers between 0 and 1, such as 0.999, or None")
        if not self.name or Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise SettingsError(f"name={self.name!r}: allowed are names of folders inside runs={str(self.runs)!r}")
        object.__setattr__(self, "runs", Path(self.runs))
        object.__setattr__(self, "data", str(self.data))
        for name in ("stages", "deform", "scales"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.scales is not None and not all(type(size) is int and size >= 8 for size in self.scales or ("none",)):
            raise SettingsError(f"scales={self.scales!r}: allowed are whole numbers of pixels from 8, or None")
        foreign = CLASSIFIER_ONLY if self.detects else DETECTOR_ONLY
        for name in foreign:
            if getattr(self, name) != foreign[name]:
                raise SettingsError(f"{name}={getattr(self, name)!r} does nothing for task={self.task!r}; leave it out")

    @property
    def detects(self) -> bool:
        """Whether this is detection or segmentation."""
        return self.task in DETECTION

    @property
    def folder(self) -> Path:
        return self.runs / self.name


# These do not change what is computed, so a resumed run may have others.
FREE = ("name", "runs", "workers", "cache", "save_every")


def to_json(settings: Settings) -> str:
    """The settings as JSON text."""
    values = asdict(settings) | {"runs": str(settings.runs)}
    return json.dumps(values, indent=2) + "\n"


def from_json(path: Path) -> Settings:
    """The settings in a run's `settings.json`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Settings(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{path} does not hold the settings of a run ({error})") from error


def changed(old: Settings, new: Settings) -> list[str]:
    """The settings that differ, each as "name: old -> new", apart from those that do not change what is computed."""
    before, after = json.loads(to_json(old)), json.loads(to_json(new))
    names = [field.name for field in fields(Settings) if field.name not in FREE]
    return [f"{name}: {before[name]} -> {after[name]}" for name in names if before[name] != after[name]]
