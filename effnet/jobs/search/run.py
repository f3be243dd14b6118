"""The driver of a search: plan, search, the final, and the winner's fit; each of them units that workers share."""

import dataclasses
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.codec import spec_from_dict
from effnet.bundle.names import RUN, SEARCH
from effnet.errors import BudgetError, InputError, WeightsError
from effnet.jobs.fit.choice.measuring import measuring
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.reading import Source, check_recipe, read_data
from effnet.jobs.fit.resume import fingerprint, read_plan
from effnet.jobs.fit.run import check_device, earlier_plan, fit_data
from effnet.jobs.search.checks import check_search, config_of
from effnet.jobs.search.facts import search_facts
from effnet.jobs.search.final import FINAL, choose_finalists, epochs_in_words, hold_final, take_training
from effnet.jobs.search.measured import space_of
from effnet.jobs.search.plan import Plan, check_images, make_plan, slowness_of
from effnet.jobs.search.scoring import objective_of
from effnet.jobs.search.trainings import around_best, search_space, train_references, value_of
from effnet.jobs.search.widths import trained_network
from effnet.jobs.search.worker import Worker
from effnet.measurement.speed.timing import Timing
from effnet.nas.finals import decide
from effnet.nas.generations import Generations
from effnet.nas.objective import published_search_cost
from effnet.nas.spaces.space import Genome
from effnet.nas.storage import Waiting
from effnet.nas.study import Study, Unit, forget_log, open_study, seed_of
from effnet.planner.pretrained import LEAST_SIDE
from effnet.planner.space import Candidate
from effnet.planner.timetable import UNLIMITED, deadline_of
from effnet.report.search.searched import Searched
from effnet.system.lock import alone_in, sweep
from effnet.system.records import from_data, to_data
from effnet.tasks.registry import find_task

# The unit of the plan, before the short trainings.
_PLAN = Unit(-2, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the bundle of a search is: the folder, and the machine that made it."""

    folder: Path
    host: str


def work(job: Job) -> Found:
    """Run a search, or this worker's part of it, and return the finished bundle."""
    check_search(job)
    with alone_in(job.out):
        sweep(job.out / RUN, deep=True)
        return _work(job)


def _work(job: Job) -> Found:
    clock = job.procedure.stopwatch.clock
    started = clock()
    job = dataclasses.replace(job, deadline=deadline_of(job.config.minutes, clock=clock))
    earlier_plan(job)
    check_device(job)
    source = read_data(job)
    check_recipe(job, source.dataset)
    if not source.dataset.label_kind.classes:
        raise InputError(
            f"a search compares networks by their accuracy on classes; the task of these data is "
            f"{find_task(source.dataset.task).title}: use effnet fit"
        )
    if (found := _assembled(job, source, started)) is not None:
        return found
    check_images(job, source)
    storage = config_of(job).storage or str(job.out / RUN / SEARCH)
    key = fingerprint(source.dataset)
    begun = False
    try:
        waiting = Waiting(say=job.say, clock=clock)
        with open_study(storage, waiting=waiting, options=job.options, key=key) as study, measuring(job) as measure:
            worker = _worker(job, source, study, key, measure)
            begun = True
            return _go(worker, started)
    finally:
        if not begun and config_of(job).storage is None:  # nothing was searched: nothing is left behind
            forget_log(Path(storage), job.out)


def _assembled(job: Job, source: Source, started: float) -> Found | None:
    """Return the bundle that is assembled from pretrained weights, if that is the algorithm and there are any."""
    config = config_of(job)
    if config.algorithm not in ("auto", "assemble") or config.weights == "none":
        return None
    begun = (job.out / RUN / SEARCH).is_file() or config.storage is not None  # a search from scratch
    if config.algorithm == "auto" and (begun or source.report.median_short_side < LEAST_SIDE):
        return None
    try:
        fit_data(dataclasses.replace(job, assembles=True), source, plan=read_plan(job.out), started=started)
    except WeightsError as error:
        if config.algorithm == "assemble":
            raise
        job.say(f"Searching from scratch: {error}")
        return None
    return Found(folder=job.out, host=socket.gethostname())


def _worker(job: Job, source: Source, study: Study, key: str, measure: Callable[[Candidate], Timing]) -> Worker:
    """Return the worker, with the plan that it made or that another had made before."""
    done = study.in_turn([_PLAN], lambda _: to_data(make_plan(job, source, measure)))[_PLAN]
    plan: Plan = from_data(Plan, done, where="the plan of the search")
    space = space_of(job, source, plan.precision, plan.measured)
    references: dict[Genome, Any] = {(-1, n): spec_from_dict(dict(data)) for n, data in enumerate(plan.references)}
    return Worker(
        job=job,
        source=source,
        study=study,
        plan=plan,
        space=space,
        references=references,
        scaled={*space.baselines, *references},
        slowness=slowness_of(plan.timed),
        measure=measure,
        extent=Generations(key=f"{job.seed} {key}", total=plan.trainings, size=plan.size),
    )


def _go(worker: Worker, started: float) -> Found:
    """Search, hold the final, and fit the winner, or wait for the worker that does."""
    import torch

    torch.set_num_threads(worker.plan.threads)  # the number of threads changes sums in their last bits
    worker = dataclasses.replace(
        worker, objective=objective_of(worker, lambda spec, seed: value_of(worker, spec, seed))
    )
    job = worker.job
    algorithm = algorithm_of(job)
    unit = worker.after(2)
    if (told := worker.study.results().get(unit)) is not None and not told["error"]:
        job.say("The search is finished; its bundle is not made again")
        return Found(folder=Path(told["folder"]), host=told["host"])
    most = worker.plan.trainings
    what = "one network" if most == 1 else f"up to {most} networks"
    job.say(f"Searching: training {what} briefly ({algorithm})", heading=True)
    references = train_references(worker)
    worker = around_best(worker, references)
    history = [*references, *search_space(worker, algorithm)]
    spent = published_search_cost(history, budget=worker.space.budget) if config_of(job).strict_paper else ""
    if spent:
        job.say(spent)
    trained = {row.genome: trained_network(worker, row) for row in history}
    worker = dataclasses.replace(worker, rescaled=trained)
    chosen = choose_finalists(worker, history)
    searched_of = worker.spec
    worker = dataclasses.replace(worker, rescaled=trained | {genome: spec for genome, (spec, _) in chosen.items()})
    measured = {genome: figures for genome, (_, figures) in chosen.items()}
    finalists, epochs = hold_final(worker, history, list(measured))
    lengths = _final_length(epochs, networks=len(finalists), most=worker.plan.most_epochs)
    verdict = decide(finalists, seed=seed_of(worker.extent.key))
    facts = search_facts(
        worker.spec,
        history,
        finalists,
        verdict,
        algorithm=algorithm,
        objective=config_of(job).objective,
        seconds=round(job.procedure.stopwatch.clock() - started, 1),
        scaled=worker.scaled,
        measured=measured,
        searched_of=searched_of,
        notes=[*lengths, *filter(None, [spent])],
    )
    for said in (facts.sentence, *lengths):
        job.say(said)
    told = worker.study.in_turn([unit], lambda _: _fit(worker, list(measured), verdict.winner, facts))[unit]
    shutil.rmtree(job.out / RUN / FINAL, ignore_errors=True)
    if told["error"]:
        raise BudgetError(told["error"])
    return Found(folder=Path(told["folder"]), host=told["host"])


def _final_length(epochs: Sequence[int], *, networks: int, most: int) -> list[str]:
    """Return how long the final's networks were trained, in words; nothing without a final.

    `most` is the number of worthwhile epochs: where it was not reached, dividing the time had a price.
    """
    if not epochs:
        return []
    length = epochs_in_words(epochs)
    found = [f"A training of the final had {length}; the winner's is that of the model"]
    if networks > 1 and min(epochs) < most:
        found.append(
            f"{networks} networks divided the time of the final, which was too short for the {most} epochs that are "
            "worthwhile for each: effnet fit trains one network for longer in the same minutes"
        )
    return found


def algorithm_of(job: Job) -> str:
    """Return the algorithm of a search."""
    asked = config_of(job).algorithm
    return "surrogate" if asked == "auto" else asked


def _fit(worker: Worker, genomes: Sequence[Genome], winner: Genome, facts: Searched) -> Mapping[str, Any]:
    """Fit the winner into this worker's `out`: its training in the final, or a last one."""
    spec, (epochs, here) = worker.spec(winner), take_training(worker, genomes, winner)
    job = dataclasses.replace(worker.job, network=spec, searched=facts, trained_epochs=epochs)
    if here:
        job.say(f"The last training of {spec.title} is its training in the final")
    if job.config.epochs or (epochs and not here):  # these epochs are trained, however long they take
        job = dataclasses.replace(job, deadline=UNLIMITED)
    told = {"folder": str(job.out.absolute()), "host": socket.gethostname(), "error": ""}
    try:
        fit_data(job, worker.source, plan=read_plan(job.out), started=job.procedure.stopwatch.clock())
    except BudgetError as error:  # final; on a machine that is too busy, the same command measures again
        return told | {"error": str(error)}
    return told
