"""`export`: a trained model as an ONNX or .pt2 file, folded where that can be, compared with PyTorch first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from gcnet.errors import RewriteError, SettingsError
from gcnet.exporters.check import Agreement, CannotRun
from gcnet.exporters.program import Dynamic, check_arguments
from gcnet.exporters.table import EXPORTERS, Exporter
from gcnet.files.atomic import write_atomically
from gcnet.recipes.inputs import file_to_write, stored_model
from gcnet.rewrites.folding.apply import fold as fold_model
from gcnet.surgery import record
from gcnet.surgery.probe import example_input


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        folded: whether the model in it is folded.
        unfolded_because: why it is not, where folding was tried.
        input_size: channels and spatial size of the input it was made with.
        agreement: the comparison with PyTorch; None where it could not be run.
        unchecked_because: why it could not.
    """

    path: Path
    size: int
    folded: bool
    unfolded_because: str | None
    input_size: tuple[int, ...]
    agreement: Agreement | None
    unchecked_because: str | None


def export(
    source: str | Path | nn.Module,
    out: str | Path,
    *,
    fold: bool | None = None,
    input_size: Sequence[int] | None = None,
    dynamic: Dynamic = True,
    dtype: str | None = None,
) -> Exported:
    """Write a model as ONNX or as a program of `torch.export`, and compare the file with PyTorch.

    Nothing is left behind by a file that differs: it is compared in memory, before it is written.

    Args:
        source: the folder of a run, a file that `gcnet.load_checkpoint` opens, or a model.
        out: the file; its suffix says which format: .onnx or .pt2.
        fold: merge norms and blocks into the convolutions first (`gcnet.fold`). None: if the model can be folded.
        input_size: channels and spatial size of an input; None for what the model's preprocessing says.
        dynamic: True: any batch and any size of image; "batch": any batch; False: one input of `input_size`.
        dtype: "float32", "float16" or "bfloat16" inside the file, whose inputs and outputs stay float32; None: as the
            model is.

    Raises:
        SettingsError: an unknown suffix, a folder that does not exist, an input size that is not known.
        RewriteError: the model cannot be folded (`fold=True`) or exported, or the file differs from PyTorch by more
            than 1e-4 relative.
        RunError, CheckpointError: no model in `source`.
        ModuleNotFoundError: the extra `export` is not installed.
    """
    out = Path(out)
    convert, check = _format_of(out)
    file_to_write(out)
    model = stored_model(source)
    size = tuple(_own_size(model) if input_size is None else input_size)
    check_arguments(size, dynamic, dtype)
    model, why_not = _folded(model, fold)
    content = convert(model, input_size=size, dynamic=dynamic, dtype=dtype)
    agreement, unchecked = None, None
    try:
        agreement = check(content, model, input_size=size, dynamic=dynamic, dtype=dtype)
    except CannotRun as error:
        unchecked = str(error)
    write_atomically(out, lambda file: file.write(content))
    return Exported(out, len(content), record.has(model, "fold"), why_not, size, agreement, unchecked)


def _format_of(out: Path) -> Exporter:
    if out.suffix.lower() not in EXPORTERS:
        raise SettingsError(f"out={str(out)!r}: the suffix says the format; allowed are {', '.join(EXPORTERS)}")
    return EXPORTERS[out.suffix.lower()]


def _own_size(model: nn.Module) -> tuple[int, ...]:
    """The input that a model of `create_model` expects."""
    if record.architecture(model) is None and record.preprocessing(model) is None:
        raise SettingsError(
            "input_size=None: this model does not say what it reads; give channels and size, for example (3, 224, 224)"
        )
    return tuple(example_input(model).shape[1:])


def _folded(model: nn.Module, fold: bool | None) -> tuple[nn.Module, str | None]:
    """The model to be exported in eval mode, and why it is not folded, where that was tried."""
    if record.has(model, "fold"):
        if fold is False:
            raise SettingsError("fold=False: this model is folded already; export the one that it was made from")
        return model, None
    model = copy.deepcopy(model).eval()
    if fold is False:
        return model, None
    try:
        return fold_model(model), None
    except (RewriteError, TypeError) as error:
        if fold:
            raise
        return model, str(error)
