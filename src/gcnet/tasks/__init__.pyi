from gcnet.errors import NonFiniteError as NonFiniteError
from gcnet.tasks.catalogue import TASKS as TASKS
from gcnet.tasks.catalogue import Entry as Entry
from gcnet.tasks.optimiser import Optimisation as Optimisation
from gcnet.tasks.run_files import RunFiles as RunFiles
from gcnet.tasks.step import Setup as Setup
from gcnet.tasks.step import Task as Task
