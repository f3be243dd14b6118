"""The unlabelled images of a fit: its options checked, its images read."""

import dataclasses
from typing import get_args

from effnet.data.datasets import Dataset
from effnet.data.inspection.unlabelled import read_unlabelled
from effnet.errors import InputError, nearest
from effnet.jobs.fit.config import UnlabelledMethod
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.unlabelled.freematch import check_method
from effnet.planner.events import Counted
from effnet.system.bounds import check_whole
from effnet.tasks.registry import find_task

MOST_ROUNDS = 2
# The share of the remaining time that reading unlabelled images may take; they are decoded once.
_READING_SHARE = 0.1


def check_unlabelled(job: Job) -> None:
    """Raise InputError for options that contradict --unlabelled."""
    rounds = getattr(job.config, "unlabelled_rounds", 1)
    check_whole("fit.unlabelled_rounds", rounds, least=1, most=MOST_ROUNDS)
    method, methods = getattr(job.config, "unlabelled_method", "auto"), get_args(UnlabelledMethod)
    if method not in methods:
        raise InputError(
            f"fit.unlabelled_method must be one of {', '.join(methods)}; got {method!r}{nearest(str(method), methods)}"
        )
    if not job.learns_unlabelled:
        if method != "auto":
            raise InputError("fit.unlabelled_method needs unlabelled images; give --unlabelled DIR, or leave it out")
        if rounds != 1:
            raise InputError("fit.unlabelled_rounds needs unlabelled images; give --unlabelled DIR, or leave it out")
        return
    if job.strategy == "head":
        raise InputError("--unlabelled trains the whole network, but fit.strategy is head; leave one of the two out")
    check_method(job)
    if job.asked.value("balance.method") == "sample":
        raise InputError(
            "--unlabelled cannot sample classes: those of unlabelled images are not known; give --set "
            "fit.balance=adjust or weight"
        )


def with_unlabelled(job: Job, dataset: Dataset, *, read: float) -> Job:
    """Return the job with its unlabelled images, if there are any; `read` is the seconds that reading an image takes.

    Raises InputError if they cannot be used with these data.
    """
    if not job.learns_unlabelled:
        return job
    _check_data(dataset)
    check_method(job)  # now the number of processes is known
    job.say(f"Reading the unlabelled images in {job.config.unlabelled}", heading=True)  # type: ignore[union-attr]
    most = None
    if job.deadline.limited and read > 0:
        most = max(1, int(_READING_SHARE * job.deadline.left() / read))
    found = read_unlabelled(
        str(job.config.unlabelled),  # type: ignore[union-attr]
        dataset,
        most=most,
        seed=job.seed,
        progress=lambda done, total: job.listener(Counted(label="reading images", done=done, total=total)),
    )
    for sentence in found.sentences:
        job.say(sentence)
    return dataclasses.replace(job, unlabelled=found)


def _check_data(dataset: Dataset) -> None:
    if not dataset.label_kind.classes:
        title = find_task(dataset.task).title
        raise InputError(f"--unlabelled needs labels that are classes; the task of these data is {title}: leave it out")
    if dataset.sound is not None or dataset.clip is not None:
        what = "sounds" if dataset.sound is not None else "frames of clips"
        raise InputError(f"--unlabelled needs single images; these data are {what}: leave it out")
