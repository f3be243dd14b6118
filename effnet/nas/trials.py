"""Trials: short trainings of the most promising candidates of a plan that meet the budget."""

import copy
import dataclasses
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.errors import BundleError
from effnet.measurement.budget import Budget
from effnet.measurement.speed.timing import Timing
from effnet.nas.algorithms.surrogate import propose_surrogate
from effnet.nas.generations import Generations, is_behind, run_generations
from effnet.nas.history import Propose, Trained
from effnet.nas.spaces.space import Decision, Genome, Space
from effnet.nas.storage import Waiting
from effnet.nas.study import open_study
from effnet.planner.events import Listener, Measured, Said
from effnet.planner.predict import MEASURED
from effnet.planner.space import Candidate, Status
from effnet.system.lock import SCRATCH
from effnet.system.text import percent

# A short training has this many epochs; after one and three of them it may be stopped.
ROUNDS, RUNGS = 9, (1, 3)
# This many larger networks of the best trial's kind are measured.
_LARGER = 4
# Candidates that are proposed at a time.
_SIZE = 4
# The axes of the table; a candidate has one value of each.
_AXES: tuple[tuple[str, Callable[[Candidate], Any]], ...] = (
    ("family", lambda c: c.family if c.spec.decoder is None else f"{c.family}, {c.spec.lineage.note}"),
    ("weights", lambda c: c.weights),
    ("phi", lambda c: c.phi),
    ("resolution", lambda c: c.spec.resolution),
    ("precision", lambda c: c.precision),
    ("kept", lambda c: c.kept),
)

Report = Callable[[int, float], bool]
"""Receives a round's number and its validation accuracy, and returns whether to continue."""
Score = Callable[[Candidate, Report], float]
"""Trains a candidate for a short while and returns its validation accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """The limits of trials: their `number` or their `seconds`, whichever comes first; `seed` draws the candidates."""

    number: int
    seconds: float
    seed: int = 0


class TableSpace:
    """The open candidates of a plan as a space, whose decisions are the axes of the table."""

    def __init__(self, table: Sequence[Candidate]) -> None:
        """Those that the plan measured to fit are the baselines, the taken one first."""
        open_ = [i for i, c in enumerate(table) if c.status in ("taken", "fits", "unmeasured")]
        values = [sorted({read(table[i]) for i in open_}) for _, read in _AXES]
        self.decisions = tuple(
            Decision(name=name, choices=tuple(found), ordered=bool(found) and not isinstance(found[0], str))
            for (name, _), found in zip(_AXES, values, strict=True)
        )
        genomes = {i: tuple(v.index(read(table[i])) for v, (_, read) in zip(values, _AXES, strict=True)) for i in open_}
        self.places = {genomes[i]: i for i in reversed(open_)}  # the most promising of equals
        self._table = tuple(table)
        known = [i for i in open_ if table[i].status in ("taken", "fits")]
        self.baselines = tuple(genomes[i] for i in sorted(known, key=lambda i: table[i].status != "taken"))

    def without(self, genomes: Collection[Genome]) -> "TableSpace":
        """Return the space without the candidates of these genomes."""
        found = copy.copy(self)
        found.places = {genome: place for genome, place in self.places.items() if genome not in genomes}
        found.baselines = tuple(genome for genome in self.baselines if genome not in genomes)
        return found

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return the network of the candidate with these values; None if there is none."""
        place = self.places.get(genome)
        return None if place is None else self._table[place].spec


def run_trials(
    table: Sequence[Candidate],
    budget: Budget,
    trials: Trials,
    *,
    measure: Callable[[Candidate], Timing],
    score: Score,
    folder: Path,
    key: str,
    listener: Listener,
    clock: Callable[[], float] = time.monotonic,
) -> list[Candidate]:
    """Return the table with the best of the trials taken, and `trial_accuracy` of each that was trained.

    The candidates that the plan measured to fit come first, then those that the surrogate of a search proposes from the
    rest; one that exceeds the budget when measured is not trained. Those behind at the same round are stopped. In the
    end the largest network of the best one's kind that meets the budget is taken.
    `folder` keeps the trials, and an interrupted search with the same `key` resumes from them. `clock` counts seconds.
    """
    running = _Trials(list(table), budget, measure, score, listener)
    end = clock() + trials.seconds
    extent = Generations(key=f"{trials.seed} {key}", total=trials.number, size=_SIZE)
    waiting = Waiting(say=lambda text: listener(Said(text=text)), clock=clock)
    log = folder / f"trials-{zlib.crc32(key.encode()):08x}.log"
    with open_study(str(log), waiting=waiting, options={}, key=key) as study:
        run_generations(
            study,
            running.space,
            _proposing(running.space),
            extent,
            train=running.train,
            listener=running.adopt,
            late=lambda: clock() >= end,
        )
    return running.conclude()


def _proposing(table: TableSpace) -> Propose:
    """Return the surrogate, to which those that were rejected teach nothing."""

    def propose(history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
        rejected = {trained.genome for trained in history if not trained.share}
        known = [trained for trained in history if trained.share]
        return propose_surrogate(known, table.without(rejected), number=number, seed=seed)

    return propose


class _Trials:
    """The table during the trials."""

    def __init__(
        self,
        table: list[Candidate],
        budget: Budget,
        measure: Callable[[Candidate], Timing],
        score: Score,
        listener: Listener,
    ) -> None:
        self.table, self.budget, self.space = table, budget, TableSpace(table)
        self._measure, self._score, self._listener = measure, score, listener
        self.count = 0

    def train(self, genome: Genome, seed: int, history: Sequence[Trained]) -> Mapping[str, Any]:
        """Measure a candidate if it has not been, and train it if it meets the budget."""
        candidate = self._known(self.space.places[genome])
        figures = {name: value for name in MEASURED if (value := getattr(candidate, name)) is not None}
        if candidate.status == "rejected":
            return {"score": 0.0, "share": 0.0, "figures": figures}
        best, rungs, done = 0.0, list[float](), 0

        def report(number: int, accuracy: float) -> bool:
            nonlocal best, done
            best, done = max(best, accuracy), number
            if number in RUNGS:
                rungs.append(best)
                return not is_behind(best, history, rung=len(rungs) - 1)
            return True

        accuracy = self._score(candidate, report)
        self._listener(Said(text=f"Trial: {candidate.title}, {percent(accuracy, 1)}"))
        found = {"score": accuracy, "accuracy": accuracy, "share": done / ROUNDS, "rungs": tuple(rungs)}
        return found | {"figures": figures}

    def _known(self, index: int) -> Candidate:
        """Return a candidate with the figures of its measurement."""
        candidate = self.table[index]
        if candidate.latency_ms is not None or not any(name in self.budget.asked() for name in MEASURED):
            return candidate
        try:
            timing = self._measure(candidate)
        except BundleError as error:
            self.table[index] = dataclasses.replace(candidate, status="rejected", reason=f"not tried: {error}")
            return self.table[index]
        known = dataclasses.replace(
            candidate,
            latency_ms=timing.latency_ms,
            memory_mb=timing.memory_mb,
            size_mb=timing.size_mb,
            waited=timing.waited,
        )
        found = self._failures(known)
        self.count += 1
        self.table[index] = dataclasses.replace(
            known, status="rejected" if found else "fits", reason=found or "meets every budget"
        )
        self._listener(Measured(candidate=self.table[index], number=self.count))
        return self.table[index]

    def _failures(self, candidate: Candidate) -> str:
        return "; ".join(self.budget.with_margin().failures(candidate.figures))

    def adopt(self, trained: Trained) -> None:
        """Write a finished trial, of this session or an earlier one, into the table."""
        index = self.space.places[trained.genome]
        candidate = dataclasses.replace(self.table[index], **(trained.figures or {}))  # type: ignore[arg-type]
        if not trained.share:
            reason = candidate.reason if candidate.status == "rejected" else self._failures(candidate)
            self.table[index] = dataclasses.replace(candidate, status="rejected", reason=reason)
            return
        self.table[index] = dataclasses.replace(
            candidate,
            status="taken" if candidate.status == "taken" else "fits",
            trial_accuracy=trained.accuracy,
            trial_rounds=round(trained.share * ROUNDS),
        )

    def conclude(self) -> list[Candidate]:
        """Take the best of those with the most rounds."""
        tried = [i for i, c in enumerate(self.table) if c.trial_accuracy is not None]
        if not tried:
            return self.table
        # Candidates are sorted by expected accuracy: take the first of equals.
        best = max(tried, key=lambda i: (self.table[i].trial_rounds, self.table[i].trial_accuracy, -i))
        for i in tried:
            candidate = self.table[i]
            assert candidate.trial_accuracy is not None
            sentence = (
                f"{percent(candidate.trial_accuracy, 1)} after {candidate.trial_rounds} of {ROUNDS} rounds of trials"
            )
            status: Status = "taken" if i == best else "fits"
            self.table[i] = dataclasses.replace(candidate, status=status, reason=f"meets every budget; {sentence}")
        for i, candidate in enumerate(self.table):
            if candidate.status == "taken" and i != best:
                self.table[i] = dataclasses.replace(candidate, status="fits", reason="meets every budget; not tried")
        return self._with_larger(best)

    def _with_larger(self, best: int) -> list[Candidate]:
        """Take the largest network of the best trial's kind that meets the budget, if it was not tried.

        A trial tells which kind is best; within a kind, more of the budget is better.
        """

        def kind(found: Candidate) -> list[Any]:
            axes = [read(found) for name, read in _AXES if name != "phi"]
            return [*axes, found.spec.total_stride, len(found.spec.stages)]

        tried, open_ = self.table[best], ("unmeasured", "fits")
        larger = [i for i, c in enumerate(self.table) if c.cost.macs > tried.cost.macs and kind(c) == kind(tried)]
        for i in sorted(larger, key=lambda i: self.table[i].cost.macs)[:_LARGER]:
            candidate = self.table[i]
            if candidate.status not in open_ or candidate.trial_accuracy is not None:
                break
            candidate = self._known(i)
            if candidate.status == "rejected" or self._failures(candidate):
                break
            before = self.table[best]
            if before.trial_accuracy is None:
                before = dataclasses.replace(before, reason=f"meets every budget, smaller than {candidate.title}")
            self.table[best] = dataclasses.replace(before, status="fits")
            reason = f"meets every budget; the largest like {tried.title}, the best of the trials"
            self.table[i] = dataclasses.replace(candidate, status="taken", reason=reason)
            best = i
        return self.table


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder for one trial's checkpoints and remove it afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=SCRATCH))
    try:
        yield folder / "trial"  # with its lock beside it, so that a killed one leaves nothing that is not swept
    finally:
        shutil.rmtree(folder, ignore_errors=True)
