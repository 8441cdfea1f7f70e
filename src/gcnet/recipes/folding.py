"""`fold`: a checkpoint in, the checkpoint of the folded model out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from gcnet.checkpoints import load_checkpoint, save_checkpoint
from gcnet.errors import SettingsError
from gcnet.exporters.check import distance
from gcnet.recipes.inputs import checkpoint_to_write, stored_model
from gcnet.rewrites.folding.apply import fold as fold_model
from gcnet.surgery import record
from gcnet.surgery.probe import example_input


@dataclass(frozen=True)
class Folded:
    """What was written: the file, tensors before and after, |folded - model| / |model| on a random image."""

    path: Path
    tensors: tuple[int, int]
    difference: float


def fold(source: str | Path, out: str | Path) -> Folded:
    """Write the folded model of a checkpoint: the same function for inference, with context for almost nothing.

    `predict`, `evaluate` and `export` read the file like any other; it cannot be trained further.

    Args:
        source: the folder of a run, or a file that `gcnet.load_checkpoint` opens.
        out: the safetensors file to be written.

    Raises:
        SettingsError: `out` is no .safetensors file in a folder that exists, or is `source`; `source` is folded.
        RunError, CheckpointError: no model in `source`.
        RewriteError: the model cannot be folded; the message says why.
    """
    out = checkpoint_to_write(out, source)
    model = stored_model(source)
    if record.has(model, "fold"):
        raise SettingsError(f"source={str(source)!r} is folded already")
    folded = fold_model(model)
    save_checkpoint(folded, out)
    like = example_input(model)
    x = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    with torch.no_grad():
        found, expected = tree_leaves(load_checkpoint(out).model(x)), tree_leaves(model(x))
    return Folded(out, (len(model.state_dict()), len(folded.state_dict())), distance(found, expected))
