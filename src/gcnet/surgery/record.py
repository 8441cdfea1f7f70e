"""What a model says about itself, so that a saved checkpoint can rebuild it: plain JSON-able attributes on the module.

They are ordinary attributes, not buffers: state_dict is untouched, deepcopy and pickle carry them along.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Record = dict[str, Any]


def architecture(model: nn.Module) -> Record | None:
    """The arguments of `create_model` that built this model, or None for a model that came from elsewhere."""
    return getattr(model, "gcnet_architecture", None)


def set_architecture(model: nn.Module, name: str, num_classes: int, options: Record | None = None) -> None:
    model.gcnet_architecture = {"name": name, "num_classes": num_classes, "options": dict(options or {})}  # type: ignore[assignment]


def rewrites(model: nn.Module) -> list[Record]:
    """The rewrites applied to this model, oldest first."""
    return list(getattr(model, "gcnet_rewrites", []))


def add_rewrite(model: nn.Module, record: Record) -> None:
    model.gcnet_rewrites = [*rewrites(model), record]  # type: ignore[assignment]


def preprocessing(model: nn.Module) -> Record | None:
    """How an image becomes this model's input (size, resize, interpolation, mean, std, channel order)."""
    return getattr(model, "gcnet_preprocessing", None)


def set_preprocessing(model: nn.Module, value: Record) -> None:
    model.gcnet_preprocessing = dict(value)  # type: ignore[assignment]


def classes(model: nn.Module) -> list[str] | None:
    """The class names in the order of the logits."""
    return getattr(model, "gcnet_classes", None)


def set_classes(model: nn.Module, names: list[str]) -> None:
    model.gcnet_classes = list(names)  # type: ignore[assignment]


def carry(old: nn.Module, new: nn.Module) -> None:
    """What gcnet noted on the block: its place if `insert` put it there, the model's record if it is the root."""
    for key, value in vars(old).items():
        if key.startswith("gcnet_"):
            setattr(new, key, value)
