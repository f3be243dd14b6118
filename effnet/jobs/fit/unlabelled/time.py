"""The time of students: whether a plan reserves a share for them."""

import dataclasses
import math

from effnet.data.datasets import Dataset
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.prune import use_for
from effnet.jobs.fit.unlabelled.freematch import STEPS, chosen_method
from effnet.jobs.fit.unlabelled.student import least_seconds
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.space import Candidate
from effnet.planner.timetable import clock_words


def with_reserve(job: Job, candidate: Candidate, dataset: Dataset) -> Job:
    """Return the job, without a share of the time for students of unlabelled images if none can be trained in it.

    Training on labelled images then has that time; a student is still trained if enough is left.
    """
    if job.unlabelled is None or job.time_limit is None:
        return job
    rounds: int = job.config.unlabelled_rounds  # type: ignore[union-attr]
    total = use_for(candidate, dataset, job).unlabelled if job.deadline.limited else job.time_for_students
    own, method = total / rounds, chosen_method(job, dataset)[0]
    needs = least_seconds(
        candidate.whole or candidate.spec, labelled=len(dataset.train), pseudo=len(job.unlabelled.paths),
        read=job.pace.read, steps=STEPS if method == "freematch" else 1.0,
    )  # fmt: skip
    if needs <= own:
        return job
    # More than enough: the fixed costs of a fit do not grow with its minutes.
    enough = math.ceil((job.config.minutes or DEFAULT_MINUTES) * needs / max(own, 1.0))
    job.say(
        f"A student of the unlabelled images takes at least {clock_words(needs)}, and its share of the time is "
        f"{clock_words(own)}, so training on labelled images has that too; give --minutes {enough} for a student"
    )
    return dataclasses.replace(job, reserves=False)
