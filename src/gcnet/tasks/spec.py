"""What a task is: one record, which says how its data are opened, its model is trained, measured, shown and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcnet.tasks.parts import TaskSettings


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task.

    Attributes:
        name: in the settings.
        metric: the figure that chooses the epoch and heads every table; the highest is the best.
        settings: the type of its own part of the settings.
        defaults: where it departs from the defaults of the other parts, by flat name.
        derive: flat settings as they were given -> with those that follow from them.
        shorthands: names that only `derive` reads, such as that of a published recipe.
    """

    name: str
    metric: str
    settings: type[TaskSettings] = TaskSettings
    defaults: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    shorthands: tuple[str, ...] = ()
