"""What a model is trained for: losses, metrics, optimiser and the files of a run, on Lightning.

The names load on first use: settings and the table of tasks need neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcnet.errors import NonFiniteError as NonFiniteError
    from gcnet.tasks.parts import Optimisation as Optimisation
    from gcnet.tasks.run_files import RunFiles as RunFiles
    from gcnet.tasks.spec import Entry as Entry
    from gcnet.tasks.spec import TaskSpec as TaskSpec
    from gcnet.tasks.step import Setup as Setup
    from gcnet.tasks.step import Task as Task
    from gcnet.tasks.table import TASKS as TASKS

_WHERE = {
    "TASKS": "gcnet.tasks.table",
    "Entry": "gcnet.tasks.spec",
    "NonFiniteError": "gcnet.errors",
    "Optimisation": "gcnet.tasks.parts",
    "RunFiles": "gcnet.tasks.run_files",
    "Setup": "gcnet.tasks.step",
    "Task": "gcnet.tasks.step",
    "TaskSpec": "gcnet.tasks.spec",
}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gcnet.tasks' has no attribute {name!r}")
