"""The remaining time of a fit: its use, what no longer fits, and what a resumed fit has."""

import dataclasses

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import RUN
from effnet.data.datasets import Dataset
from effnet.errors import InputError
from effnet.jobs.fit.deploy.export import least_steps
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.prune import use_for
from effnet.jobs.fit.resume import Attempt, Plan
from effnet.jobs.fit.transfer.finetune import learned_seconds
from effnet.jobs.fit.unlabelled.kept import students_seconds
from effnet.planner.oracle import machine_pace, training_speed
from effnet.planner.settings import epochs_in, most_epochs
from effnet.planner.space import Candidate
from effnet.planner.timetable import PLANNING_SHARE, clock_words, not_enough

# The share of the time for training that its epochs are planned to fill; the last one must not be cut short.
FILLED = 0.9
# A validation image costs this many times less than one in training, whose pass backwards takes twice as long as the
# pass forwards.
_VALIDATION = 3
# The cost of a training step of an image, in inferences.
_STEP = 3


def paced(job: Job, *, read: float) -> Job:
    """Return the job with the speed of this machine, measured if there is a deadline."""
    if not job.deadline.limited:
        return job
    pace = machine_pace(read, target=job.target, stopwatch=job.procedure.stopwatch)
    return dataclasses.replace(job, pace=pace, planning=job.deadline.at_most(PLANNING_SHARE * job.deadline.seconds))


def resumed(job: Job, plan: Plan, dataset: Dataset) -> Job:
    """Return the job with the time that earlier sessions left: their planning, training and verification count.

    Their finished work is found again, so at least the verification of a network has its time.
    """
    if not job.deadline.limited:
        return job
    number = len(plan.failed) + 1
    used = plan.seconds + sum(failed["seconds"] for failed in plan.failed)
    folder = job.out / RUN / f"attempt-{number}"
    used += learned_seconds(folder) + students_seconds(folder)
    candidate = plan.candidates[plan.attempts[number - 1].candidate]
    least = plan.pace.finishing(dataset, candidate.cost.macs)
    if candidate.precision == "int8":
        least += plan.pace.int8(dataset, candidate.cost.macs, steps=least_steps(job.target))
    used = max(0.0, min(used, job.deadline.left() - least))
    return dataclasses.replace(
        job, pace=plan.pace, deadline=dataclasses.replace(job.deadline, end=job.deadline.end - used)
    )


def tell_use(job: Job, candidate: Candidate, dataset: Dataset) -> dict[str, float]:
    """Print the use of the remaining time and return it for the report; nothing without a deadline."""
    if not job.deadline.limited:
        return {}
    use = use_for(candidate, dataset, job)
    left, given = clock_words(job.deadline.left()), clock_words(job.deadline.seconds)
    job.say(f"{left} of {given} are left, to be used for", heading=True)
    for line in use.in_words():
        job.say(line)
    if candidate.precision == "int8" and not use.int8:
        needs = job.pace.int8(dataset, candidate.cost.macs, steps=least_steps(job.target))
        job.say(f"  int8 is only tried if training ends early: it takes about {clock_words(needs)}")
    return {"before": round(job.deadline.used(), 1)} | use.to_dict()


def too_late(job: Job, plan: Plan, dataset: Dataset, *, number: int) -> str:
    """Return a sentence if the remaining time is too short for another attempt; empty if it is not."""
    if not job.deadline.limited:
        return ""
    candidate = plan.candidates[plan.attempts[number].candidate]
    macs, pace = candidate.cost.macs, job.pace
    int8 = pace.int8(dataset, macs, steps=least_steps(job.target))
    needs = pace.finishing(dataset, macs) + (int8 if candidate.precision == "int8" else 0.0)
    needs += pace.head(dataset, macs) if candidate.weights else _epoch_seconds(job, dataset, candidate)
    left = job.deadline.left()
    what = f"The next smaller network, {candidate.title}, was not tried"
    return not_enough(what, needs=needs, left=left) if left < needs else ""


def with_epochs_left(job: Job, plan: Plan, dataset: Dataset) -> Plan:
    """Return the plan whose next attempt has as many epochs as fit into the remaining time, by its own first steps."""
    attempts = list(plan.attempts)
    number = len(plan.failed)
    attempt, candidate = attempts[number], plan.candidates[attempts[number].candidate]
    if not job.deadline.limited or job.trained_epochs or candidate.weights or candidate.spec.decoder:  # known, or found
        return plan
    seconds = measured_epoch(candidate.whole or candidate.spec, attempt, dataset)
    learning = use_for(candidate, dataset, job).learning
    epochs = max(1, min(most_epochs(len(dataset.train)), int(FILLED * learning / seconds)))
    recipe = dataclasses.replace(attempt.recipe, train=dataclasses.replace(attempt.recipe.train, epochs=epochs))
    attempts[number] = dataclasses.replace(attempt, recipe=recipe)
    return dataclasses.replace(plan, attempts=attempts)


def measured_epoch(spec: ArchSpec, attempt: Attempt, dataset: Dataset) -> float:
    """Return the seconds of an epoch from scratch with validation, by the first steps of such a training."""
    from effnet.training.speed import run_speed

    speed = run_speed(spec, dataset, attempt.recipe, attempt.preprocess)
    return (len(dataset.train) + len(dataset.val) / _VALIDATION) / speed


def epochs_left(job: Job, dataset: Dataset, candidate: Candidate) -> int:
    """Return the number of epochs from scratch that fit into the remaining time."""
    seconds = _epoch_seconds(job, dataset, candidate)
    speed, left = len(dataset.train) / seconds, use_for(candidate, dataset, job).learning
    return epochs_in(left / 60, images_per_second=speed, num_train=len(dataset.train))


def _epoch_seconds(job: Job, dataset: Dataset, candidate: Candidate) -> float:
    if candidate.spec.decoder is not None:
        return _STEP * job.pace.answer(len(dataset.train), candidate.cost.macs)
    speed = training_speed(candidate.spec)
    return job.pace.epoch(dataset, candidate.cost.macs, images_per_second=speed)


def extended(job: Job, plan: Plan) -> Plan:
    """Return the plan with more epochs if a resumed fit requests more than it began with.

    Everything else stays. Raises InputError if fewer are requested.
    """
    before, now = plan.options.get("epochs"), job.config.epochs
    if type(before) is not int or now is None or now == before:
        return plan
    if now < before:
        raise InputError(
            f"--epochs must be at least {before} to resume the fit in {job.out}, which has {before} epochs; got {now}"
        )
    attempts = []
    for attempt in plan.attempts:
        train = dataclasses.replace(attempt.recipe.train, epochs=now)
        attempts.append(dataclasses.replace(attempt, recipe=dataclasses.replace(attempt.recipe, train=train)))
    return dataclasses.replace(plan, options={**plan.options, "epochs": now}, attempts=attempts)
