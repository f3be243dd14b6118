"""Read and inspect the data of a fit or a search, and check the recipe against them."""

import dataclasses
from dataclasses import dataclass

from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.inspect import DataReport, describe, inspect_and_join
from effnet.data.inspection.mirrors import why_not_mirrored, with_mirrors_judged
from effnet.data.inspection.shapes import resize_note
from effnet.data.inspection.unreadable import without_unreadable
from effnet.errors import InputError
from effnet.jobs.fit.config import TASKS
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.other_tasks import check_answers
from effnet.planner.events import Counted
from effnet.tasks.registry import find_task, task_for
from effnet.training.distill import read_teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data as read: its inspection, and the seconds that reading an image took."""

    dataset: Dataset
    report: DataReport
    read: float


def read_data(job: Job) -> Source:
    """Read and inspect the data, and say what was found."""
    clock = job.procedure.stopwatch.clock
    started = clock()
    job.say(f"Reading {job.config.data}", heading=True)
    dataset = read_dataset(
        job.source,
        seed=job.seed,
        channels=job.config.channels,
        strict=job.config.strict,
        group_by=job.config.group_by,
        outputs=job.config.outputs,
        task=_task(job),
        corrections=getattr(job.config, "corrections", None),
        progress=lambda done, total: job.listener(Counted(label="shards listed", done=done, total=total)),
    )
    dataset, report = inspect_and_join(
        dataset, seed=job.seed, value_range=job.config.value_range, sound=job.config.sound
    )
    for line in describe(report):
        job.say(line)
    dataset = without_unreadable(dataset, report.unreadable, strict=job.config.strict)
    if report.values is not None:  # printed with the report
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *report.values.sentences))
    said = len(dataset.notes)
    square = find_task(dataset.task).whole is None
    if square and dataset.sound is None and (note := resize_note(job.config.resize, report.shapes)):
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, note))
    if square and job.asked.value("augment.flip") is None:
        dataset = with_mirrors_judged(dataset)
    for note in dataset.notes[said:]:
        job.say(note)
    return Source(dataset=dataset, report=report, read=(clock() - started) / report.num_examined)


def _task(job: Job) -> str:
    """Return the requested task, by an option or by the decoder of the network; "auto" leaves it to the data.

    A data set that was read has its task, and the network is checked against it later.
    """
    if job.network is not None and job.network.decoder is not None and not isinstance(job.source, Dataset):
        return task_for(job.network)
    return TASKS[getattr(job.config, "task", "auto")]


def _check_kept(job: Job, dataset: Dataset) -> None:
    """Raise InputError if kept feature maps are requested where none can be kept."""
    reason = ""
    if job.config.VERB == "train" or job.config.weights == "none" or job.strategy == "scratch":
        reason = "without pretrained weights the first stages must be trained too"
    elif dataset.task == "segmentation":
        reason = "a segmenter learns from new views of its masks"
    elif job.ranks.size > 1:
        reason = f"one process keeps them, and there are {job.ranks.size}"
    if reason:
        raise InputError(f"kept.views must be 0 here, got {job.asked.value('kept.views')}: {reason}; leave it out")


def check_recipe(job: Job, dataset: Dataset) -> None:
    """Raise InputError for options that the task lacks and other classes of a teacher; warn of flips that may harm."""
    check_answers(job, dataset)
    if job.asked.value("kept.views"):
        _check_kept(job, dataset)
    if teacher := job.asked.value("loss.teacher"):
        read_teacher(teacher, class_names=dataset.class_names, channels=dataset.channels)
    if job.asked.value("augment.flip"):
        reason = why_not_mirrored(dataset) if dataset.mirror_safe else "a flip changes what these show."
        if reason:
            job.say(f"The recipe flips images, but {reason} --set augment.flip=false turns flips off")
