"""The short trainings of a search: those of the networks that `fit` would choose from, then those of the search."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.errors import BudgetError, InputError
from effnet.jobs.fit.choice.short_training import train_briefly
from effnet.jobs.search.checks import config_of
from effnet.jobs.search.measured import space_of
from effnet.jobs.search.widths import meets, network_of, trained_network
from effnet.jobs.search.worker import Worker
from effnet.nas.algorithms.by_name import find_algorithm
from effnet.nas.generations import is_behind, run_generations, trained_from
from effnet.nas.history import Propose, Trained
from effnet.nas.spaces.macro import MacroSpace
from effnet.nas.spaces.space import Genome
from effnet.nas.study import Unit, seed_of
from effnet.nas.trials import ROUNDS, RUNGS
from effnet.planner.space import title_of
from effnet.system.records import to_data
from effnet.system.text import percent

# The generation of the references, before those of the search.
_REFERENCES = -1


def train_references(worker: Worker) -> list[Trained]:
    """Return the short trainings of the networks that `fit` would choose from."""
    units = {Unit(_REFERENCES, slot): genome for slot, genome in enumerate(worker.references)}

    def do(unit: Unit) -> Mapping[str, Any]:
        seed = seed_of(worker.extent.key, *unit)
        place = {"genome": units[unit], "generation": unit.generation, "slot": unit.slot, "seed": seed}
        whole: Mapping[str, Any] = to_data(Trained(**{**_train(worker, units[unit], seed, ()), **place}))
        return whole

    found = [
        trained_from(row)
        for row in worker.study.in_turn(list(units), do, score="score", late=lambda: _no_time(worker)).values()
    ]
    for trained in found:
        _tell(worker, trained, "Scaled network")
    return found


def around_best(worker: Worker, references: Sequence[Trained]) -> Worker:
    """Return a worker whose space has networks like the best of those that `fit` would choose from."""
    config, plan = config_of(worker.job), worker.plan
    if config.base != "auto" or config.strict_paper or not references:
        return worker
    best = max(references, key=lambda each: each.score)
    name = worker.references[best.genome].lineage.base
    try:
        space = space_of(worker.job, worker.source, plan.precision, plan.measured, base=name)
    except (BudgetError, InputError) as error:
        worker.job.say(f"The search changes the stages of {worker.space.base.name}, not of {name}: {error}")
        return worker
    worker.job.say(
        f"The search changes the stages of {name}, which was best in short trainings of what fit would choose"
    )
    return dataclasses.replace(worker, space=space, scaled={*space.baselines, *worker.references})


def search_space(worker: Worker, algorithm: str) -> list[Trained]:
    """Return the history of the search itself."""
    if algorithm == "supernet":
        from effnet.jobs.search.elastic import search_supernet  # torch

        return search_supernet(worker)
    return run_generations(
        worker.study,
        worker.space,
        _scaled_first(find_algorithm(algorithm), _first(worker)),
        worker.extent,
        train=lambda genome, seed, history: _train(worker, genome, seed, history),
        listener=lambda trained: _tell(worker, trained, "Network"),
        late=lambda: _no_time(worker),
    )


def _first(worker: Worker) -> list[Genome]:
    """Return the scaled networks with which the search begins."""
    found = [genome for genome in worker.space.baselines if worker.space.network(genome) is not None]
    return found[: worker.job.procedure.search.scaled]


def _no_time(worker: Worker) -> bool:
    """Return whether the time for short trainings is over."""
    return worker.late(worker.plan.deciding + worker.plan.proving)


def _tell(worker: Worker, trained: Trained, what: str) -> None:
    number = trained.slot + 1 + max(0, trained.generation) * worker.extent.size
    title = title_of(trained_network(worker, trained), worker.plan.precision)
    stopped = "" if trained.share == 1 else f", stopped after {trained.share:.0%} of its epochs"
    found = f"{percent(trained.accuracy, 1)}{stopped}" if trained.share else "above the budget, so not trained"
    worker.job.say(f"{what} {number}: {title}, {found}")


def _train(worker: Worker, genome: Genome, seed: int, history: Sequence[Trained]) -> dict[str, Any]:
    """Train a network briefly, and stop it if it falls behind the completed generations.

    One that exceeds the budget when it is measured, at every width, is not trained.
    """
    spec, made = network_of(worker, genome)
    if made.get("network") and not meets(worker, made["figures"]):
        return made | {"score": 0.0, "share": 0.0}
    best, rungs = float("-inf"), list[float]()

    def heard(epoch: int, value: float) -> bool:
        nonlocal best
        best = max(best, value)
        if epoch in RUNGS:
            rungs.append(best)
            return not is_behind(best, history, rung=len(rungs) - 1)
        return True

    dataset, report = worker.source.dataset, worker.source.report
    views = worker.views(spec, worker.plan.images, ROUNDS)
    found = train_briefly(spec, worker.job, dataset, report, **views, seed=seed, heard=heard)
    return made | {
        "score": worker.objective.score(found.best, figures=made["figures"], nll=found.nll),
        "accuracy": found.best,
        "nll": found.nll,
        "loss": found.loss,
        "rungs": tuple(rungs),
        "share": len(found.values) / views["epochs"],
    }


def value_of(worker: Worker, spec: ArchSpec, seed: int) -> float:
    """Return the task's figure of a network after a short training."""
    dataset, report = worker.source.dataset, worker.source.report
    views = worker.views(spec, worker.plan.images, ROUNDS)
    return train_briefly(spec, worker.job, dataset, report, **views, seed=seed).best


def _scaled_first(propose: Propose, baselines: Sequence[Genome]) -> Propose:
    """Return an algorithm whose first generation begins with scaled networks of its space.

    Networks that were above the budget, and so not trained, teach it nothing, and are none to it.
    """

    def call(history: Sequence[Trained], space: MacroSpace, *, number: int, seed: int) -> list[Genome]:
        known = [trained for trained in history if trained.share]
        left = space.without({trained.genome for trained in history} - {trained.genome for trained in known})
        found = propose(known, left, number=number, seed=seed)
        return found if history else list(dict.fromkeys([*baselines, *found]))[:number]

    return call
