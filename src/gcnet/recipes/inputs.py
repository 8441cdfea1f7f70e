"""Which model, which images, which device, and may that file be written: the same answers for every command.

A model is the folder of a run, a file that `gcnet.load_checkpoint` opens or, where a model without training makes sense
(`analyze`, `profile`), also a name that `gcnet.create_model` takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from gcnet.checkpoints import load_checkpoint
from gcnet.data.listing import images_in
from gcnet.errors import RunError, SettingsError, UsageError
from gcnet.models import create_model
from gcnet.models.create import family
from gcnet.tasks.parts import BlockSettings

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # of files; what ends so and is not there is no name


def weights_of(source: str | Path) -> Path:
    """The file of weights itself, or the one in the folder of a finished run."""
    path = Path(source)
    if not path.is_dir():
        return path
    if not (path / "model.safetensors").exists():
        hint = f"; finish it by `gcnet train --resume {path}`" if (path / "settings.json").exists() else ""
        raise RunError(f"{path} holds no finished run (there is no file model.safetensors){hint}")
    return path / "model.safetensors"


def stored_model(source: str | Path | nn.Module) -> nn.Module:
    """The model of a run or of a file, in eval mode; one that is given is taken as it is."""
    return source if isinstance(source, nn.Module) else load_checkpoint(weights_of(source)).model


def model_of(source: str | Path, *, weights: str | Path | None = None, block: BlockSettings | None = None) -> nn.Module:
    """The model of a run, of a file or of a name.

    Args:
        source: what is there is a folder or a file; all else is a name.
        weights, block: as in `gcnet.create_model`, for a name only.

    Raises:
        SettingsError, UsageError: weights or a block for a model that has its own, places for no block.
        RunError, CheckpointError, FileNotFoundError: no usable model there.
        GcnetError: a name that is unknown, options that do not fit.
    """
    path, name = Path(source), str(source)
    block = block or BlockSettings()
    if block.name is None and block != BlockSettings():
        raise UsageError("block=None: name the block that this says where and how to put in")
    if path.exists() or path.suffix in _SUFFIXES:
        if weights is not None:
            raise SettingsError(f"weights={str(weights)!r}: {path} has its own; leave it out")
        if block.name is not None:
            raise UsageError(f"block={block.name!r}: {path} says itself which blocks it has; leave it out")
        return stored_model(path)
    return create_model(name, num_classes=family(name).classes, weights=weights, block=block.name, **block.places())


def find_images(places: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files named, and all images in the folders named (`gcnet.data.listing.images_in`), each once."""
    found = [images_in(place) if place.is_dir() else [place] for place in map(Path, as_list(places))]
    if not any(found):
        raise SettingsError("images: none given, and none in the folders given")
    return list(dict.fromkeys(file for files in found for file in files))


def as_list(places: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """One place is a list of one."""
    return [places] if isinstance(places, str | Path) else list(places)


def device_of(name: str | None = None) -> torch.device:
    """The device of that name, if it is there; None for the GPU, or the CPU where there is none."""
    there = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if name is not None and name not in there:
        raise UsageError(f"device: {name!r} is not there; use {' or '.join(there)}")
    return torch.device(name or there[-1])


def file_to_write(out: str | Path) -> Path:
    """`out`, if it can become a file; refused now and not after the work."""
    out = Path(out)
    if out.is_dir():
        raise SettingsError(f"out={str(out)!r} is a folder; name the file to be written in it")
    if not out.parent.is_dir():
        raise SettingsError(f"out={str(out)!r}: the folder {out.parent} does not exist; make it first")
    return out


def checkpoint_to_write(out: str | Path, source: str | Path) -> Path:
    """`out`, if it can become a checkpoint and is not the one that is read."""
    out = Path(out)
    if out.resolve() == weights_of(source).resolve():
        raise SettingsError(f"out={str(out)!r} is the file to be converted; give another name")
    if out.suffix.lower() != ".safetensors":
        raise SettingsError(f"out={str(out)!r}: a checkpoint is a .safetensors file (`gcnet export` writes others)")
    return file_to_write(out)
