"""The driver of fit and train: plan, train, verify, and repeat with a smaller network while the budget is missed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.bundle.names import CONFIG, PLAN, RUN
from effnet.data.datasets import Dataset
from effnet.data.inspection.inspect import DataReport
from effnet.data.inspection.shapes import resized_as
from effnet.errors import BudgetError, BusyError, InputError
from effnet.jobs.fit.assemble import assembled_facts
from effnet.jobs.fit.attempt import make_artifact
from effnet.jobs.fit.checks import check, check_weights
from effnet.jobs.fit.choice.shortlist import choose
from effnet.jobs.fit.dense import dense_attempt
from effnet.jobs.fit.deploy.artifact import Artifact, publish
from effnet.jobs.fit.deploy.device import describe_device, device_of
from effnet.jobs.fit.job import Job, command_line, options_given
from effnet.jobs.fit.other_tasks import without_unasked_trials
from effnet.jobs.fit.prune import forget_change
from effnet.jobs.fit.reading import Source, check_recipe, read_data
from effnet.jobs.fit.resume import Attempt, Plan, check_same, fingerprint, read_plan, write_plan
from effnet.jobs.fit.summary import summarize
from effnet.jobs.fit.time_left import epochs_left, extended, paced, resumed, tell_use, too_late, with_epochs_left
from effnet.jobs.fit.unlabelled.reading import with_unlabelled
from effnet.jobs.fit.unlabelled.time import with_reserve
from effnet.planner.events import Planned
from effnet.planner.oracle import busy_planning, training_speed
from effnet.planner.refusal import enough
from effnet.planner.settings import epochs_in, make_preprocess, make_recipe
from effnet.planner.space import Candidate
from effnet.planner.timetable import clock_words, deadline_of
from effnet.report.facts import TimeUse
from effnet.report.model import Report
from effnet.runtimes.installed import missing
from effnet.system.lock import alone_in, sweep
from effnet.system.machine import machine
from effnet.training.memory.probe import fit_batch_here
from effnet.training.recipe.schema import Recipe


def work(job: Job) -> Report:
    """Run the whole fit and return its report."""
    check(job)
    with alone_in(job.out):
        sweep(job.out / RUN, deep=True)
        return _work(job)


def _work(job: Job) -> Report:
    clock = job.procedure.stopwatch.clock
    started = clock() if job.began is None else job.began
    job = dataclasses.replace(job, deadline=deadline_of(job.config.minutes, clock=clock, began=started))
    plan = earlier_plan(job)
    if plan is None:  # a resumed fit may no longer need them
        check_weights(job)
        check_device(job)
    source = read_data(job)
    if plan is None:
        check_recipe(job, source.dataset)
    return fit_data(job, source, plan=plan, started=started)


def fit_data(job: Job, source: Source, *, plan: Plan | None, started: float) -> Report:
    """Plan and carry out the fit, or resume its `plan`; it `started` at this time of its clock."""
    dataset, report = source.dataset, source.report
    job = without_unasked_trials(job, dataset)
    job = with_unlabelled(job, dataset, read=source.read)
    if plan is None:
        job = paced(job, read=source.read)
        plan = _plan(job, dataset, report, started)
        job = dataclasses.replace(job, reserves=plan.reserves)
    else:
        earlier, plan = plan, extended(job, plan)
        check_same(plan, job, fingerprint(dataset))
        if plan is not earlier:
            write_plan(plan, job.out)
            for number in range(len(plan.attempts)):
                forget_change(job.out / RUN / f"attempt-{number + 1}")
        job = resumed(dataclasses.replace(job, reserves=plan.reserves), plan, dataset)
        job.say(f"Resuming the fit in {job.out}", heading=True)
    return _carry_out(job, plan, dataset, report)


def earlier_plan(job: Job) -> Plan | None:
    """Return the plan to resume; raise InputError if `out` is in use and not to be resumed."""
    out, resume = job.out, job.config.resume
    plan = read_plan(out) if resume else None
    # A fit that was killed before its plan was written leaves at most an empty run folder.
    foreign = [path.name for path in out.iterdir() if path.name != RUN or not resume] if out.is_dir() else []
    if plan is None and (foreign or out.is_file()):
        raise InputError(f"{out} must be new or empty; it is not: {_what_to_do(out, resume=resume)}")
    return plan


def _what_to_do(out: Path, *, resume: bool) -> str:
    """Return the advice of an error if `out` cannot be used."""
    if not (out / RUN / PLAN).is_file():
        return "there is no fit in it to resume, so name another --out" if resume else "name another --out"
    if (out / CONFIG).is_file():
        return (
            "there is a finished fit in it; name another --out, or add --resume and more --epochs than it had to train "
            "that one longer"
        )
    return "add --resume to continue the fit in it, or name another --out"


def check_device(job: Job) -> None:
    """Raise InputError for a wrong device profile before any work is done for it."""
    device_of(job)
    error = missing(job.target.runtime, int8="int8" in job.target.precisions(job.budget))
    if error is not None:
        raise error


def _plan(job: Job, dataset: Dataset, report: DataReport, started: float) -> Plan:
    job.say(f"Planning: measuring candidates in {job.target.runtime}", heading=True)
    if job.deadline.limited:
        most, left = clock_words(job.planning.left()), clock_words(job.deadline.left())
        job.say(f"Planning takes at most {most} of the remaining {left}")
    for sentence in describe_device(job):
        job.say(sentence)
    table = choose(job, dataset, report)
    job.listener(Planned(candidates=table))
    left_out: tuple[str, ...] = ()
    if job.deadline.limited and job.planning.left() <= 0 and any(c.latency_ms is not None for c in table):
        left_out = ("Planning reached its time limit, so no further candidates were measured",)
        job.say(left_out[0])
    if busy := busy_planning(table, threads=job.config.threads):
        job.say(busy)
    order = _order(table, job.procedure.fallbacks)
    job = with_reserve(job, table[order[0]], dataset)
    rough = None
    if job.trained_epochs:
        rough = job.trained_epochs
    elif job.deadline.limited and not table[order[0]].weights and table[order[0]].spec.decoder is None:
        rough = epochs_left(job, dataset, table[order[0]])  # each attempt counts its own when it begins
    attempts = [attempt_at(job, dataset, report, index, table[index], epochs=rough) for index in order]
    plan = Plan(
        task=dataset.task,
        options=job.options,
        fingerprint=fingerprint(dataset),
        candidates=table,
        attempts=attempts,
        busy=busy,
        seconds=job.deadline.clock() - started,
        pace=job.pace,
        left_out=left_out,
        reserves=job.reserves,
    )
    plan = with_epochs_left(job, plan, dataset)
    (job.out / RUN).mkdir(parents=True, exist_ok=True)
    write_plan(plan, job.out)
    return plan


def _order(table: list[Candidate], fallbacks: int) -> list[int]:
    """Return the candidates to train, the taken one first, then those measured to fit, better ones first."""
    taken = next(i for i, c in enumerate(table) if c.status == "taken")
    # Weights other than the taken ones have not been downloaded, and may not be available.
    usable = [i for i, c in enumerate(table) if c.status == "fits" and c.weights == table[taken].weights]
    if all(c.trial_accuracy is None for c in table):
        usable = [i for i in usable if i > taken]
    else:  # results of trials precede expectations
        usable.sort(key=lambda i: (-table[i].trial_rounds, -(table[i].trial_accuracy or 0.0)))
    return [taken, *usable[:fallbacks]]


def attempt_at(
    job: Job, dataset: Dataset, report: DataReport, index: int, candidate: Candidate, *, epochs: int | None
) -> Attempt:
    """Return the attempt at a candidate; `epochs` are those that fit before a deadline."""
    spec, num_train = candidate.whole or candidate.spec, len(dataset.train)
    if spec.decoder is not None:
        return dense_attempt(job, dataset, index, candidate)
    epochs, side = epochs or job.config.epochs or job.asked.value("train.epochs"), report.median_short_side
    if candidate.weights:
        epochs = epochs or 1  # fine-tuning chooses its own, unless it is given
        preprocess = candidate.preprocess
        assert preprocess is not None
    else:
        preprocess = make_preprocess(dataset, resolution=spec.resolution, short_side=side, seed=job.seed)
        if job.time_limit is not None and not job.deadline.limited:
            epochs = epochs_in(job.time_limit, images_per_second=training_speed(spec), num_train=num_train)
    assert epochs is not None
    memory_gb = machine()["memory_gb"]
    chosen = make_recipe(dataset, spec, epochs=epochs, short_side=side, memory_gb=memory_gb, seed=job.seed)
    recipe = job.asked.complete(chosen, epochs=epochs, seed=job.seed)
    return Attempt(
        candidate=index,
        recipe=_fitted(job, dataset, spec, recipe) if job.config.batch == "auto" else recipe,
        preprocess=resized_as(
            dataclasses.replace(preprocess, value_range=dataset.value_range, sound=dataset.sound, clip=dataset.clip),
            job.config.resize,
            report.shapes,
        ),
        strategy=job.strategy if candidate.weights else "scratch",
    )


def _fitted(job: Job, dataset: Dataset, spec: ArchSpec, recipe: Recipe) -> Recipe:
    """Return the recipe with the largest micro-batch that fits in memory."""
    found = fit_batch_here(spec, recipe, dataset)
    if found is None:
        job.say("This system does not report its free memory; the batch is not divided into micro-batches")
        return recipe
    job.say(found.sentence)
    return found.recipe


def _carry_out(job: Job, plan: Plan, dataset: Dataset, report: DataReport) -> Report:
    """Train and verify the planned network, and the next smaller ones while the artifact misses the budget."""
    failed: list[Any] = list(plan.failed)
    left_out, use = list(plan.left_out), dict[str, Any]()
    while True:
        number = len(failed)
        attempt = plan.attempts[number]
        # Fine-tuning after pruning and quantization flips images only if the recipe does.
        dataset = dataclasses.replace(dataset, mirror_safe=dataset.mirror_safe and attempt.recipe.augment.flip)
        candidate = plan.candidates[attempt.candidate]
        use = use or tell_use(job, candidate, dataset)
        artifact = make_artifact(candidate, attempt, dataset, folder=job.out / RUN / f"attempt-{number + 1}", job=job)
        left_out += artifact.left_out
        if artifact.honoured or artifact.undecided or number + 1 == len(plan.attempts):
            break
        if late := too_late(job, plan, dataset, number=number + 1):
            left_out.append(late)
            job.say(late)
            break
        failed.append(
            {
                "name": candidate.spec.name,
                "title": candidate.title,
                "honoured": False,
                "failures": list(artifact.failures),
                "seconds": artifact.seconds,
            }
        )
        plan = _with_failure(plan, attempt.candidate, artifact, failed)
        plan = dataclasses.replace(with_epochs_left(job, plan, dataset), left_out=left_out)
        write_plan(plan, job.out)
        job.say(f"{candidate.title} missed the budget: {'; '.join(artifact.failures)}. Trying the next smaller network")
    data = summarize(
        plan,
        artifact,
        dataset,
        report,
        budget=job.budget,
        command=command_line(job),
        options=options_given(job),
        seed=job.seed,
        data=str(job.config.data),
        report_images=job.config.report_images,
        time=_time_use(job, use, tuple(left_out)),
        searched=job.searched or assembled_facts(job.out / RUN / f"attempt-{number + 1}"),
    )
    publish(artifact, data, dataset, job.out, draws=job.procedure.draws)
    _refuse_missed(job, artifact, left_out)
    return data


def _time_use(job: Job, plan: dict[str, float], left_out: tuple[str, ...]) -> TimeUse | None:
    """Return the planned and the actual use of the minutes; None if none were given."""
    minutes = job.config.minutes
    if minutes is None:
        return None
    return TimeUse(minutes=minutes, plan=plan, used_seconds=round(job.deadline.used(), 1), left_out=left_out)


def _refuse_missed(job: Job, artifact: Artifact, left_out: Sequence[str]) -> None:
    """Raise BudgetError if the finished file misses the budget, BusyError if that is unknown."""
    if artifact.undecided:
        raise BusyError(
            f"it is unknown whether the finished model meets the latency budget. {artifact.undecided}. Model and "
            f"report are in {job.out}; the same command with --resume measures again"
        )
    if not artifact.honoured:
        advice = enough(job.budget, artifact.measured)
        said = "" if not left_out or left_out[-1] in artifact.failures else f". {left_out[-1]}"
        late = f"{said}; give more --minutes" if left_out else ""
        raise BudgetError(
            f"the finished model misses the budget: {'; '.join(artifact.failures)}{advice and f'; ask for {advice}'}"
            f"{late}. Model and report are in {job.out}"
        )


def _with_failure(plan: Plan, index: int, artifact: Artifact, failed: list[dict[str, Any]]) -> Plan:
    table = list(plan.candidates)
    reason = f"the finished file missed the budget: {'; '.join(artifact.failures)}"
    table[index] = dataclasses.replace(table[index], status="failed", reason=reason)
    successor = plan.attempts[len(failed)].candidate
    table[successor] = dataclasses.replace(
        table[successor], status="taken", reason="the next smaller that meets every budget"
    )
    return dataclasses.replace(plan, candidates=table, failed=failed)
