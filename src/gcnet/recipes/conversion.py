"""`convert`: a checkpoint of another program in, one of gcnet out, which needs nothing but gcnet to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from gcnet.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from gcnet.errors import SettingsError
from gcnet.recipes.inputs import checkpoint_to_write, weights_of
from gcnet.surgery.probe import example_input


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
    source, out = weights_of(source), checkpoint_to_write(out)
    if out.resolve() == source.resolve():
        raise SettingsError(f"out={str(out)!r} is the file to be converted; give another name")
    found = load_checkpoint(source, strict=strict)
    save_checkpoint(found.model, out)
    before, after = _outputs(found.model), _outputs(load_checkpoint(out).model)
    if len(before) != len(after) or not all(map(torch.equal, before, after)):
        out.unlink()
        raise CheckpointError(f"{source}: the model read back from {out} gave other outputs; nothing was written")
    return Converted(out, found.source, found.architecture, found.classes, len(found.model.state_dict()))


def _outputs(model: nn.Module) -> list[torch.Tensor]:
    """All tensors that the model puts out for one small image."""
    generator = torch.Generator().manual_seed(0)
    trace: Any = getattr(model, "trace", None)  # of detectors: also what their thresholds would hide
    with torch.no_grad():
        if trace is not None:
            outputs = trace(torch.randn(1, 3, 96, 128, generator=generator), [(96, 128)])
        else:
            outputs = model(torch.rand(example_input(model).shape, generator=generator).to(example_input(model)))
    return [leaf for leaf in tree_leaves(outputs) if torch.is_tensor(leaf)]
