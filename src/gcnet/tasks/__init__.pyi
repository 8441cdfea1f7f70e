from gcnet.errors import NonFiniteError as NonFiniteError
from gcnet.tasks.parts import Optimisation as Optimisation
from gcnet.tasks.run_files import RunFiles as RunFiles
from gcnet.tasks.spec import Entry as Entry
from gcnet.tasks.spec import TaskSpec as TaskSpec
from gcnet.tasks.step import Setup as Setup
from gcnet.tasks.step import Task as Task
from gcnet.tasks.table import TASKS as TASKS
