"""`convert`: a checkpoint of another program in, one of gcnet out, which needs nothing but gcnet to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from gcnet.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from gcnet.recipes.inputs import checkpoint_to_write, weights_of
from gcnet.surgery.probe import example_input
from gcnet.tasks.table import spec_of


@dataclass(frozen=True)
class Converted:
    """What was written: the file, what it was made from, its model's architecture, how many tensors it holds."""

    path: Path
    source: str
    architecture: dict[str, Any]
    classes: list[str] | None
    tensors: int


def convert(source: str | Path, out: str | Path, *, strict: bool = False) -> Converted:
    """Write a checkpoint of mmdetection, torchvision or timm (or an own one) as a file of `gcnet.save_checkpoint`.

    The file is read back: its model must give the same outputs, bit for bit.

    Args:
        source: a file that `gcnet.load_checkpoint` reads, or the folder of a run.
        out: the safetensors file to be written.
        strict: a hash in the name of `source` that is not the file's is an error, not a warning.

    Raises:
        SettingsError: `out` is no .safetensors file in a folder that exists, or is `source` itself.
        RunError, CheckpointError: `source` cannot be read; the message says why.
    """
    source, out = weights_of(source), checkpoint_to_write(out, source)
    found = load_checkpoint(source, strict=strict)
    save_checkpoint(found.model, out)
    before, after = _outputs(found.model), _outputs(load_checkpoint(out).model)
    if len(before) != len(after) or not all(map(torch.equal, before, after)):
        out.unlink()
        raise CheckpointError(f"{source}: the model read back from {out} gave other outputs; nothing was written")
    return Converted(out, found.source, found.architecture, found.classes, len(found.model.state_dict()))


def _outputs(model: nn.Module) -> list[torch.Tensor]:
    """All tensors that the model puts out for one small image."""
    like = example_input(model)
    image = torch.rand(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    every_layer = spec_of(model).cost(model, image).module  # of a detector also what its thresholds would hide
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(every_layer(image)) if torch.is_tensor(leaf)]
