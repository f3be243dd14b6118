"""The driver of a search: plan, search, the final, and the winner's fit; each of them units that workers share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.cost import cost
from effnet.bundle.names import RUN, SEARCH
from effnet.errors import BudgetError, BusyError, InputError
from effnet.jobs.fit.checks import check
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import fingerprint, read_plan
from effnet.jobs.fit.run import Source, check_device, check_recipe, earlier_plan, fit_data, read_data
from effnet.jobs.fit.short_training import train_briefly
from effnet.jobs.fit.shortlist import measuring
from effnet.jobs.search.facts import search_facts
from effnet.jobs.search.plan import (
    DEFAULT_MINUTES,
    FINALISTS,
    SEEDS,
    Plan,
    check_images,
    config_of,
    make_plan,
    space_of,
)
from effnet.measurement.timing import Timing
from effnet.nas.algorithms import find_algorithm
from effnet.nas.finals import Finalist, Verdict, choose_finalists, decide
from effnet.nas.generations import Generations, is_behind, run_generations
from effnet.nas.history import Propose, Trained
from effnet.nas.macro import MacroSpace
from effnet.nas.space import Genome, Space
from effnet.nas.study import Study, Unit, Waiting, open_study, seed_of
from effnet.planner.events import Counted
from effnet.planner.space import Candidate, in_precision, only_candidate
from effnet.planner.timetable import deadline_of
from effnet.planner.trials import ROUNDS
from effnet.system.lock import alone_in, sweep
from effnet.system.records import from_data, to_data
from effnet.system.text import percent

_PLAN = Unit(-1, 0)
# A short training may be stopped after these epochs.
_RUNGS = (1, 3)
# The best scaled networks that every search begins with; further ones that are measured if a finalist is too slow.
_SCALED, _SPARE = 3, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where the bundle of a search is: the folder, and the machine that made it."""

    folder: Path
    host: str


def work(job: Job) -> Found:
    """Run a search, or this worker's part of it, and return the finished bundle."""
    check(job)
    if not job.budget.asked():
        raise InputError("a search needs a device budget; got none. Give --max-latency-ms, or another limit")
    with alone_in(job.out):
        sweep(job.out / RUN, deep=True)
        return _work(job)


def _work(job: Job) -> Found:
    clock = job.procedure.stopwatch.clock
    started = clock()
    job = dataclasses.replace(job, deadline=deadline_of(job.config.minutes or DEFAULT_MINUTES, clock=clock))
    earlier_plan(job)
    check_device(job)
    source = read_data(job)
    check_recipe(job, source.dataset)
    check_images(source)
    storage = config_of(job).storage or str(job.out / RUN / SEARCH)
    key = fingerprint(source.dataset)
    waiting = Waiting(say=job.say, clock=clock)
    with open_study(storage, waiting=waiting, options=job.options, key=key) as study:
        return _Search(job, source, study, key, started).go()


class _Search:
    """One worker of a running search."""

    def __init__(self, job: Job, source: Source, study: Study, key: str, started: float) -> None:
        self.job, self.source, self.study, self.started = job, source, study, started
        self.dataset, self.key = source.dataset, f"{job.seed} {key}"
        self.plan = self._plan()
        self.space: MacroSpace = space_of(job, source, self.plan.precision, self.plan.measured)
        self.algorithm = algorithm_of(job)
        self.extent = Generations(key=self.key, number=self.plan.generations, size=self.plan.size)

    def go(self) -> Found:
        """Search, hold the final, and fit the winner, or wait for the worker that does."""
        import torch

        torch.set_num_threads(self.plan.threads)  # the number of threads changes sums in their last bits
        total = self.plan.generations * self.plan.size
        self.job.say(f"Searching: training up to {total} networks briefly ({self.algorithm})", heading=True)
        history = self._search()
        measured = self._finalists(history)
        finalists = self._finals(history, list(measured))
        verdict = decide(finalists, seed=seed_of(self.key))
        facts = search_facts(
            self.space,
            history,
            finalists,
            verdict,
            algorithm=self.algorithm,
            objective=config_of(self.job).objective,
            seconds=round(self.job.procedure.stopwatch.clock() - self.started, 1),
            measured=measured,
        )
        self.job.say(facts.sentence)
        unit = Unit(self.extent.number + 2, 0)
        told = self.study.in_turn([unit], lambda _: self._fit(verdict, facts))[unit]
        if told.get("error"):
            raise {"BusyError": BusyError}.get(told["kind"], BudgetError)(told["error"])
        return Found(folder=Path(told["folder"]), host=told["host"])

    def late(self, share: float) -> bool:
        """Return whether less than this share of the minutes is left."""
        return self.job.deadline.left() < share * self.job.deadline.seconds

    def _plan(self) -> Plan:
        found: Plan = from_data(
            Plan, self.study.in_turn([_PLAN], lambda _: to_data(make_plan(self.job, self.source)))[_PLAN], where="plan"
        )
        return found

    def _search(self) -> list[Trained]:
        count = 0

        def tell(trained: Trained) -> None:
            nonlocal count
            count += 1
            spec = self.space.network(trained.genome)
            assert spec is not None
            stopped = "" if trained.share == 1 else f" after {trained.share:.0%} of its epochs, stopped"
            self.job.say(f"Network {count}: {spec.title}, {percent(trained.accuracy, 1)}{stopped}")

        return run_generations(
            self.study,
            self.space,
            _scaled_first(find_algorithm(self.algorithm), self.space.baselines),
            self.extent,
            train=self._train,
            listener=tell,
            late=lambda: self.late(self.plan.reserved),
        )

    def _train(self, genome: Genome, seed: int, history: Sequence[Trained]) -> Mapping[str, Any]:
        """Train a network briefly, and stop it if it falls behind the completed generations."""
        spec = self.space.network(genome)
        assert spec is not None
        best, rungs = float("-inf"), []

        def heard(epoch: int, value: float) -> bool:
            nonlocal best
            best = max(best, value)
            if epoch in _RUNGS:
                rungs.append(best)
                return not is_behind(best, history, rung=len(rungs) - 1)
            return True

        found = train_briefly(
            spec, self.job, self.dataset, self.source.report, images=self.plan.images, seed=seed, heard=heard
        )
        costs = cost(spec)
        figures = {"macs": float(costs.macs), "params": float(costs.params), **self.space.figures(spec)}
        return {
            "score": found.best,
            "accuracy": found.best,
            "nll": found.nll,
            "loss": found.loss,
            "rungs": tuple(rungs),
            "share": len(found.values) / ROUNDS,
            "figures": figures,
            "predicted": tuple(name for name in ("latency_ms", "memory_mb") if name in figures),
        }

    def _finalists(self, history: Sequence[Trained]) -> dict[Genome, Mapping[str, float]]:
        """Return the networks of the final with their measured figures, by one worker for all."""
        unit = Unit(self.extent.number, 0)
        rows = self.study.in_turn([unit], lambda _: {"finalists": self._measured(history)})[unit]["finalists"]
        return {tuple(genome): figures for genome, figures in rows}

    def _finals(self, history: Sequence[Trained], genomes: Sequence[Genome]) -> list[Finalist]:
        """Return the finalists with their trainings; those whose trainings have no time are left out."""
        self.job.say(f"The final: {len(genomes)} networks, trained anew with {SEEDS} seeds each", heading=True)
        units = [Unit(self.extent.number + 1, slot) for slot in range(len(genomes) * SEEDS)]
        done = self.study.in_turn(
            units,
            lambda unit: self._train_finalist(genomes[unit.slot % len(genomes)], seed_of(self.key, *unit)),
            late=lambda: self.late(self.plan.reserved_for_fit),
        )
        scaled = set(self.space.baselines)
        found = []
        for number, genome in enumerate(genomes):
            rows = [row for unit, row in done.items() if unit.slot % len(genomes) == number]
            if not rows:
                continue
            right = tuple(tuple(mark == "1" for mark in row["right"]) for row in rows if row["right"])
            values, nlls = (tuple(row[name] for row in rows) for name in ("value", "nll"))
            found.append(Finalist(genome=genome, scaled=genome in scaled, values=values, nlls=nlls, right=right))
            title = self.space.network(genome).title  # type: ignore[union-attr]
            self.job.say(f"{title}{' (scaled)' if genome in scaled else ''}: {percent(found[-1].mean, 1)}")
        if not found:  # no time for any: the best of the search
            best = choose_finalists(history, scaled=self.space.baselines, number=1)[-1]
            trained = max((each for each in history if each.genome == best), key=lambda each: each.share)
            found = [Finalist(genome=best, scaled=best in scaled, values=(trained.score,), nlls=(trained.nll or 0.0,))]
        return found

    def _measured(self, history: Sequence[Trained]) -> list[tuple[Genome, Mapping[str, float]]]:
        """Return the finalists that meet the budget when they are measured, the best scaled one first."""
        scaled, budget = set(self.space.baselines), self.job.budget.with_margin()
        kept: dict[bool, list[tuple[Genome, Mapping[str, float]]]] = {True: [], False: []}
        missed: list[tuple[float, Genome, Mapping[str, float]]] = []
        with measuring(self.job) as measure:
            for genome in choose_finalists(history, scaled=(), number=len(history)):
                kind = genome in scaled
                if len(kept[kind]) >= (1 if kind else FINALISTS) or len(missed) > FINALISTS + _SPARE:
                    continue
                figures = self._figures(genome, measure)
                if (share := budget.share(figures)) <= 1:
                    kept[kind].append((genome, figures))
                else:
                    missed.append((share, genome, figures))
                done = len(kept[True] + kept[False]) + len(missed)
                self.job.listener(Counted(label="finalists measured", done=done, total=FINALISTS + 1 + len(missed)))
        return kept[True] + kept[False] or [min(missed, key=lambda each: each[0])[1:]]

    def _figures(self, genome: Genome, measure: Callable[[Candidate], Timing]) -> Mapping[str, float]:
        """Return the measured figures of a network, by the keys of the budget."""
        spec = self.space.network(genome)
        assert spec is not None
        candidate = in_precision(only_candidate(spec), self.plan.precision)
        timing = measure(candidate)
        measured = {"latency_ms": timing.latency_ms, "memory_mb": timing.memory_mb, "size_mb": timing.size_mb}
        return {**{key: value for key, value in candidate.figures.items() if value is not None}, **measured}

    def _train_finalist(self, genome: Genome, seed: int) -> Mapping[str, Any]:
        spec = self.space.network(genome)
        assert spec is not None
        found = train_briefly(
            spec, self.job, self.dataset, self.source.report,
            images=self.plan.final_images, epochs=self.plan.final_epochs, seed=seed,
        )  # fmt: skip
        return {"value": found.best, "nll": found.nll, "right": _right(found, self.dataset.val)}

    def _fit(self, verdict: Verdict, facts: Any) -> Mapping[str, Any]:
        """Fit the winner into this worker's `out`, in the rest of the time."""
        import socket

        winner = self.space.network(verdict.winner)
        assert winner is not None
        self.job.say(f"Training {winner.title} to its end", heading=True)
        job = dataclasses.replace(self.job, network=winner, searched=facts)
        told = {"folder": str(job.out.absolute()), "host": socket.gethostname(), "error": "", "kind": ""}
        try:
            fit_data(job, self.source, plan=read_plan(job.out), started=self.job.procedure.stopwatch.clock())
        except (BudgetError, BusyError) as error:
            return told | {"error": str(error), "kind": type(error).__name__}
        return told


def algorithm_of(job: Job) -> str:
    """Return the algorithm of a search."""
    asked = config_of(job).algorithm
    return "surrogate" if asked == "auto" else asked


def _scaled_first(propose: Propose, baselines: Sequence[Genome]) -> Propose:
    """Return an algorithm whose first generation begins with scaled networks, so that every search has a baseline."""

    def call(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
        found = propose(history, space, number=number, seed=seed)
        if history:
            return found
        return list(dict.fromkeys([*baselines[:_SCALED], *found]))[:number]

    return call


def _right(found: Any, val: Any) -> str:
    """Return for each validation image whether the network's answer is right, "1" or "0"."""
    import torch

    from effnet.training.device import pick_device, to_input
    from effnet.training.input.batches import eval_batches

    device, marks = pick_device(), []
    found.model.to(device).eval()
    with torch.no_grad():
        for images, indices in eval_batches(val, found.preprocess):
            answers = found.model(to_input(images, found.preprocess, device)).argmax(1).cpu().numpy()
            marks.append(np.equal(answers, val.labels[indices]))
    return "".join("1" if mark else "0" for mark in np.concatenate(marks))
