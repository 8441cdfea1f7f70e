"""Whose files are read: a row per program. A new source is a module or folder with its ADAPTER, and a row here."""

from __future__ import annotations

from pathlib import Path

from gcnet.checkpoints import classifiers, mmdet, torchvision
from gcnet.checkpoints.content import Adapter, Built, Content
from gcnet.errors import CheckpointError, some

ADAPTERS: tuple[Adapter, ...] = (mmdet.ADAPTER, torchvision.ADAPTER, classifiers.ADAPTER)  # the first that fits


def build(path: Path, content: Content) -> Built:
    """The model of a file of another program, with its tensors in it.

    Raises:
        CheckpointError: it is of none of these programs, or its tensors do not fit; all that do not are counted.
    """
    shapes = {key: tuple(value.shape) for key, value in content.tensors.items()}
    adapter = next((adapter for adapter in ADAPTERS if adapter.fits(shapes)), None)
    if adapter is None:
        raise CheckpointError(
            f"{path}: its {len(shapes)} tensors are those of no model that gcnet recognises: "
            f"{', '.join(one.source for one in ADAPTERS)}. They begin with {some(shapes, 4)}. For another model: "
            "load_checkpoint(path, architecture=model)"
        )
    try:
        return adapter.build(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
