"""`profile`: a model of a run, a file or a name: what it costs by stage, with and without its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gcnet.recipes.inputs import device_of, model_of
from gcnet.report.profile import Profile
from gcnet.report.profile import profile as profile_model
from gcnet.surgery import record
from gcnet.surgery.probe import example_input
from gcnet.tasks.parts import BlockSettings


def profile(
    model: str | Path,
    *,
    input_size: Sequence[int] | None = None,
    batch: int = 1,
    block: str | None = None,
    stages: Sequence[str] | None = None,
    at: str | None = None,
    where: str | int | Sequence[int] | None = None,
    position: str | None = None,
    block_options: Mapping[str, Any] | None = None,
    rounds: int = 20,
    device: str | None = None,
    channels_last: bool = False,
) -> Profile:
    """What one pass of a model costs; see `gcnet.profile`.

    Args:
        model: the folder of a run, a file that `gcnet.load_checkpoint` opens, or a name for `gcnet.create_model`.
        input_size: channels, height and width; None for what the model expects, of a detector a landscape of its
            shorter side.
        batch: images in the pass.
        block, stages, at, where, position, block_options: for a model given by name, the block that is put in, and
            where; as in `Settings`.
        rounds: how often each model is timed; 0 leaves the latency out.
        device: "cpu" or "cuda"; None for the GPU if there is one.
        channels_last: time the model in this memory format.

    Raises:
        UsageError: places without a block, a block for a model that has its own, a device that is not there.
        RunError, CheckpointError, FileNotFoundError: no usable model there.
        GcnetError: an unknown name, options or a size that do not fit the model.
    """
    place = device_of(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    put_in = BlockSettings(
        name=block,
        stages=None if stages is None else tuple(stages),
        at=at,
        where=where if where is None or isinstance(where, str | int) else tuple(where),
        position=position,
        options=block_options or {},
    )
    built = model_of(model, block=put_in)
    built = built.to(place, memory_format=layout)  # type: ignore[call-overload]
    return profile_model(built, (batch, *(input_size or _expected_size(built))), rounds=rounds)


def _expected_size(model: nn.Module) -> tuple[int, ...]:
    """Channels, height and width of a model's input; for a detector a landscape of its shorter side, 800 x 1280."""
    side = (record.preprocessing(model) or {}).get("min_size")
    if side is None:
        return tuple(example_input(model).shape[1:])
    shorter = side[-1] if isinstance(side, list) else side
    return 3, shorter, round(1.6 * shorter)
