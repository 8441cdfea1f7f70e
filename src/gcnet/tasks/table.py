"""The tasks: a literal table of addresses, so that a task is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gcnet.errors import SettingsError, choice
from gcnet.lazy import loaded
from gcnet.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from torch import nn

TASKS = {
    "classify": "gcnet.tasks.classification.spec:SPEC",
    "detect": "gcnet.tasks.detection.spec:DETECT",
    "instances": "gcnet.tasks.detection.spec:INSTANCES",
    "scenes": "gcnet.scenes.spec:SPEC",
}
OLD_NAMES = {
    "segment": "says too little: 'instances' finds objects and their masks, as it did; 'semantic', a class for every "
    "pixel, is not there yet"
}


def spec(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        SettingsError: there is none.
    """
    if name in OLD_NAMES:
        raise SettingsError(f"task={name!r} {OLD_NAMES[name]}")
    return loaded(TASKS[choice("task", name, tuple(TASKS), kind=SettingsError)])


def spec_of(model: nn.Module) -> TaskSpec:
    """The task that a model is for: what its record says, else the last one in the table that recognises it."""
    from gcnet.surgery import record  # brings torch, which the table does without

    told = (record.architecture(model) or {}).get("task")
    if told in TASKS:
        return spec(told)
    return next(known for known in map(spec, reversed(TASKS)) if known.recognise(model))
