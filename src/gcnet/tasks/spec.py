"""What a task is: one record, which says how its data are opened and its model is built, trained, measured and shown.

Importing a task's `spec` loads no torch: what needs it stands in other files, which are loaded when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gcnet.lazy import loaded
from gcnet.tasks.parts import TaskSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gcnet.data.source import Source


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file.

    Attributes:
        entry: what is given out; `path` and `error`, which says why the file could not be read, and the task's own.
        seen: the image, as it is (uint8) or as the model saw it (floats); None of a file that cannot be read.
        share: gives the share of the model's input that the image takes, in height and width; the rest is padding.
    """

    entry: dict[str, Any]
    seen: Tensor | None = None
    share: Callable[[], tuple[float, float]] = lambda: (1.0, 1.0)


@dataclass(frozen=True)
class Counted:
    """What of a model is counted and timed.

    Attributes:
        module: takes the images, and its work does not depend on what is in them.
        part_of: the name of a module -> the part behind the stages that it belongs to, if it belongs to one.
        boxes: objects that are assumed in each image.
    """

    module: nn.Module
    part_of: Callable[[str], str | None] | None = None
    boxes: int | None = None


def whole_model(model: nn.Module, images: Tensor) -> Counted:
    """All of the model is counted."""
    return Counted(model)


def later(address: str, **fixed: Any) -> Callable[..., Any]:
    """The function at "package.module:name", which is loaded when it is called; `fixed` are arguments of every call."""
    return lambda *args, **kwargs: loaded(address)(*args, **fixed, **kwargs)


def example_of(model: nn.Module, settings: Any) -> tuple[nn.Module, Tensor]:
    """The model and one image of the size that it expects."""
    from gcnet.surgery.probe import example_input

    return model, example_input(model)


def best_class(entry: Mapping[str, Any]) -> dict[str, str]:
    return {"class": entry["class"], "score": f"{entry['score']:.3f}"}


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task. `settings` are those of the run that trains a model, `model` is one that was trained.

    Attributes:
        name: in the settings.
        metric: the figure that chooses the epoch and heads every table; the highest is the best.
        settings: the type of its own part of the settings.
        idle: settings of other parts that do nothing for it, by flat name, and are refused.
        defaults: where it departs from the defaults of the other parts, by flat name.
        derive: flat settings as they were given -> with those that follow from them.
        shorthands: names that only `derive` reads, such as that of a published recipe.
        recognise: whether a model that does not say its task is of this one.
        read: (path, splits=, settings=) or (path, splits=, model=, strict=) -> what examples there are; has `classes`.
        build: (settings, classes) -> the model before its first step, with its record.
        open: (what was read, model, settings or None to look only) -> datasets.
        module: (model, setup, source, settings) -> the Lightning module that trains it.
        metrics: (source, split) -> a module that gathers figures over batches and processes: `update(outputs, batch)`,
            `compute`, which is empty if no example was seen, and `reset`.
        predict: (model, files, threshold) -> one `Prediction` for each file; None: it reads no photographs.
        at_once: how many images are looked at together, unless settings say so.
        shown: entry of a prediction -> heading and text of each of its cells in a table.
        draw: (uint8 image, entry of its prediction) -> the image with what was found in it; None: nothing is drawn.
        compared: (model, settings) -> what a comparison counts and times, and an image for it.
        counted: what that is, in words.
        cost: (model, images) -> what a profile counts and times.
        spot: arguments of `insert` for one block, if its models have no stages.
    """

    name: str
    metric: str
    settings: type[TaskSettings]
    idle: tuple[str, ...] = ()
    recognise: Callable[[nn.Module], bool]
    read: Callable[..., Any]
    build: Callable[[Any, Sequence[str]], nn.Module]
    open: Callable[..., Source]
    module: Callable[..., Any]
    metrics: Callable[[Source, str], Any]
    predict: Callable[[nn.Module, Sequence[Any], float], list[Prediction]] | None = None
    at_once: int = 32
    shown: Callable[[Mapping[str, Any]], dict[str, str]] = best_class
    draw: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None
    compared: Callable[[nn.Module, Any], tuple[nn.Module, Tensor]] = example_of
    counted: str = "one image"
    cost: Callable[[nn.Module, Tensor], Counted] = whole_model
    defaults: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    shorthands: tuple[str, ...] = ()
    spot: Mapping[str, Any] | None = None


Entry = TaskSpec  # its name in version one


def built(settings: Any, classes: Sequence[str], **options: Any) -> nn.Module:
    """The model that the settings name, with its block, for these classes."""
    from gcnet.models import create_model
    from gcnet.surgery import record

    model = create_model(
        settings.model.name,
        num_classes=len(classes),
        weights=settings.model.weights,
        block=settings.block.name,
        **settings.block.places(),
        **options,
    )
    record.set_classes(model, list(classes))
    return model
