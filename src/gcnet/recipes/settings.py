"""Every setting of one training run, in one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides one run; saved as `settings.json` in the run's folder.

    Learning rates are per step of the optimiser; sizes are in pixels; `seed` decides initialisation, data order and augmentation.
    """

    data: str
    task: Literal["classify", "scenes"] = "classify"
    model: str = "resnet50"
    weights: str | None = None
    block: str | None = None
    stages: tuple[str, ...] | None = None
    at: str | None = None
    where: str | None = None
    position: str | None = None
    block_options: Mapping[str, Any] = field(default_factory=dict)

    epochs: int = 30
    batch_size: int = 32
    image_size: int | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    block_lr: float = 1.0
    ema: float | None = None
    mixup: float = 0.0

    seed: int = 0
    devices: int = 1
    workers: int = 0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    cache: bool = False
    name: str = "run"
    runs: Path = Path("runs")
