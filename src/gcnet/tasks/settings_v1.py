"""The flat `settings.json` of version one, in which every task had every setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcnet.tasks.parts import named
from gcnet.tasks.table import spec

NAMES = {"segment": "instances"}
SAID_FOR_ALL = ("label_smoothing", "mixup", "scales", "photometric", "strict")  # and meant for some tasks only


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings by today's flat names."""
    task: Any = values.get("task", "classify")
    task = NAMES.get(task, task)
    own = {name for name, _ in named(spec(task).settings)}
    kept = {name: value for name, value in values.items() if name not in SAID_FOR_ALL or name in own}
    return kept | {"task": task}
