"""What a model says about itself, so that a saved checkpoint can rebuild it: plain JSON-able attributes on the module.

They are ordinary attributes, not buffers: state_dict is untouched, deepcopy and pickle carry them along.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Record = dict[str, Any]
SCHEMA = 2  # of `architecture`; 1 had no task, and a detector's options beside its name


def architecture(model: nn.Module) -> Record | None:
    """What `create_model` was asked for: schema, task, name, num_classes, options; None for a model from elsewhere."""
    return getattr(model, "gcnet_architecture", None)


def set_architecture(model: nn.Module, task: str, name: str, num_classes: int, options: Record | None = None) -> None:
    """Note what builds this model again: `create_model(name, num_classes=num_classes, **options)`.

    Args:
        model: the one that was built.
        task: what it is trained for, such as "classify", "detect", "instances", "scenes".
        name: a name of `create_model`.
        num_classes: outputs of the head, without the background.
        options: those of the name that are not its defaults, as JSON can hold them.
    """
    built = {"schema": SCHEMA, "task": task, "name": name, "num_classes": num_classes, "options": dict(options or {})}
    vars(model)["gcnet_architecture"] = built


def rewrites(model: nn.Module) -> list[Record]:
    """The rewrites applied to this model, oldest first."""
    return list(getattr(model, "gcnet_rewrites", []))


def has(model: nn.Module, rewrite: str) -> bool:
    """Whether a rewrite of that name was applied to this model."""
    return any(known["rewrite"] == rewrite for known in rewrites(model))


def add_rewrite(model: nn.Module, record: Record) -> None:
    vars(model)["gcnet_rewrites"] = [*rewrites(model), record]


def preprocessing(model: nn.Module) -> Record | None:
    """How an image becomes this model's input (size, resize, interpolation, mean, std, channel order)."""
    return getattr(model, "gcnet_preprocessing", None)


def set_preprocessing(model: nn.Module, value: Record) -> None:
    vars(model)["gcnet_preprocessing"] = dict(value)


def classes(model: nn.Module) -> list[str] | None:
    """The class names in the order of the logits."""
    return getattr(model, "gcnet_classes", None)


def set_classes(model: nn.Module, names: list[str]) -> None:
    vars(model)["gcnet_classes"] = list(names)


def carry(old: nn.Module, new: nn.Module) -> None:
    """What is noted on a block: its place if `insert` put it there, the model's record if the block is the model."""
    for key, value in vars(old).items():
        if key.startswith("gcnet_"):
            setattr(new, key, value)
