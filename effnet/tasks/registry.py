"""All tasks: the only list. A new task is a record and its modules; `register` makes it known to this process."""

from effnet.arch.decoders.record import Detector
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError, nearest, shown
from effnet.tasks import classification, detection, embedding, segmentation, several
from effnet.tasks.task import Task

BUILT_IN = (classification.TASK, several.TASK, embedding.TASK, detection.TASK, segmentation.TASK)
"""The tasks that every process knows."""

_TASKS: dict[str, Task] = {task.name: task for task in BUILT_IN}


def find_task(name: str) -> Task:
    """Return the task called `name`; raise InputError if none of this name is registered."""
    try:
        return _TASKS[name]
    except (KeyError, TypeError):  # a name read from a file may be anything
        raise InputError(
            f"a task must be one of {', '.join(_TASKS)}; got {shown(name)}{nearest(str(name), _TASKS)}; register a "
            "task of your own before its data sets and bundles are used"
        ) from None


def register(task: Task) -> Task:
    """Make a new task known to all verbs of this process, and return it; do nothing if it is known already.

    Raises InputError if its name is another's, or its labels are those of another task.
    """
    if task.labels.task != task.name:
        raise InputError(f"the labels of the task {task.name} must name it as theirs; they name {task.labels.task}")
    if _TASKS.setdefault(task.name, task) != task:
        raise InputError(f"a task must have a name of its own; {task.name} is taken: choose another")
    return task


def task_for(spec: ArchSpec) -> str:
    """Return the name of the task of a network by its decoder; without one it may have any of the other tasks'."""
    if spec.decoder is None:
        return classification.TASK.name
    return detection.TASK.name if isinstance(spec.decoder, Detector) else segmentation.TASK.name
