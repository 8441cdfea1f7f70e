"""What a model is trained for: losses, metrics, optimiser and the files of a run, on Lightning."""

from gcnet.tasks.catalogue import TASKS as TASKS
from gcnet.tasks.catalogue import Entry as Entry
from gcnet.tasks.optimiser import Optimisation as Optimisation
from gcnet.tasks.run_files import RunFiles as RunFiles
from gcnet.tasks.task import NonFiniteError as NonFiniteError
from gcnet.tasks.task import Setup as Setup
from gcnet.tasks.task import Task as Task

__all__ = ["TASKS", "Entry", "NonFiniteError", "Optimisation", "RunFiles", "Setup", "Task"]
