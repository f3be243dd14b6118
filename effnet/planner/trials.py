"""Trials: short trainings of the most promising networks that meet the budget, with successive halving."""

import dataclasses
import math
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.errors import BundleError, InputError, MissingExtraError
from effnet.measurement.budget import Budget
from effnet.planner.events import Listener, Measured, Said
from effnet.planner.space import Candidate, Status
from effnet.system.text import percent

if TYPE_CHECKING:
    import optuna

# A trial ends after this many rounds of training; after one and three rounds only the better third continues.
ROUNDS, REDUCTION = 9, 3
_LOG = "trials.log"
# The search draws from these axes; a candidate has one value of each.
_AXES: tuple[tuple[str, Callable[[Candidate], Any]], ...] = (
    ("family", lambda c: c.family),
    ("weights", lambda c: c.weights),
    ("phi", lambda c: c.phi),
    ("resolution", lambda c: c.spec.resolution),
    ("precision", lambda c: c.precision),
    ("kept", lambda c: c.kept),
)
_MEASURED = ("latency_ms", "memory_mb", "size_mb")

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


def run_trials(
    table: Sequence[Candidate],
    budget: Budget,
    trials: Trials,
    *,
    measure: Callable[[Candidate], Any],
    score: Score,
    folder: Path,
    key: str,
    listener: Listener,
    clock: Callable[[], float] = time.monotonic,
) -> list[Candidate]:
    """Return the table with the best of the trials taken, and `trial_accuracy` of each that was trained.

    The candidates that the plan measured to fit come first, then those that a tree-structured Parzen estimator draws
    from the rest; one that exceeds the budget when measured is not trained. Those behind at the same round are stopped
    (asynchronous successive halving, Li et al. 2018, algorithm 2). `folder` keeps the trials, and an interrupted search
    with the same `key` resumes from them. `clock` counts seconds.
    """
    found = list(table)
    open_ = [i for i, c in enumerate(found) if c.status in ("taken", "fits", "unmeasured")]
    places = {_axes(found[i]): i for i in reversed(open_)}  # the most promising of equals
    study = _study(trials, folder, key)
    search = _Search(found, places, budget, measure, score, listener)
    known = {tuple(trial.user_attrs.get("candidate", ())) for trial in study.trials}
    search.drawn |= {places[key] for key in known if key in places}
    for index in open_:
        if found[index].status in ("taken", "fits") and _axes(found[index]) not in known:
            study.enqueue_trial(dict(zip((name for name, _ in _AXES), _axes(found[index]), strict=True)))
    left = trials.number - sum(trial.state.is_finished() for trial in study.trials)
    if left > 0:
        study.optimize(search.try_one, n_trials=left, callbacks=[_stop_after(trials.seconds, clock)], catch=())
    search.adopt(study)
    return search.conclude()


def _stop_after(seconds: float, clock: Callable[[], float]) -> Callable[["optuna.Study", Any], None]:
    """Return a callback that ends a study; optuna's own limit follows the system clock, which may be changed."""
    end = clock() + seconds

    def stop(study: "optuna.Study", trial: Any) -> None:
        if clock() >= end:
            study.stop()

    return stop


def _axes(candidate: Candidate) -> tuple[Any, ...]:
    return tuple(read(candidate) for _, read in _AXES)


def _study(trials: Trials, folder: Path, key: str) -> "optuna.Study":
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtraError("optuna", "train") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / _LOG
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(log))),
            study_name=f"effnet-{zlib.crc32(key.encode()):08x}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=trials.seed),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
        )
    except Exception as error:  # optuna raises whatever a damaged line leads to
        raise InputError(f"{log} must hold the trials of an earlier fit; it cannot be read: {error}") from error


class _Search:
    """The table during the search."""

    def __init__(
        self,
        table: list[Candidate],
        places: dict[tuple[Any, ...], int],
        budget: Budget,
        measure: Callable[[Candidate], Any],
        score: Score,
        listener: Listener,
    ) -> None:
        self.table, self.places, self.budget = table, places, budget
        self._measure, self._score, self._listener = measure, score, listener
        self.count = 0
        self.drawn: set[int] = set()

    def try_one(self, trial: "optuna.Trial") -> float:
        """Draw a candidate, measure it if it has not been, and train it if it meets the budget."""
        import optuna

        drawn = tuple(trial.suggest_categorical(name, self._values(i)) for i, (name, _) in enumerate(_AXES))
        index = self._nearest(drawn)
        if index is None:
            trial.study.stop()
            raise optuna.TrialPruned
        self.drawn.add(index)
        trial.set_user_attr("candidate", _axes(self.table[index]))
        candidate = self._known(index)
        excess = {name: value / limit - 1 for name, limit, value in _limits(candidate, self.budget)}
        for name, value in excess.items():
            trial.set_constraint(name, value)
        if candidate.status == "rejected":
            return 0.0
        best = 0.0

        def report(number: int, accuracy: float) -> bool:
            nonlocal best
            best = max(best, accuracy)
            trial.report(best, number)
            return not trial.should_prune()

        accuracy = self._score(candidate, report)
        stopped = trial.should_prune() if best else False
        self._listener(Said(text=f"Trial {trial.number + 1}: {candidate.title}, {percent(accuracy, 1)}"))
        if stopped:
            raise optuna.TrialPruned
        return accuracy

    def _values(self, axis: int) -> list[Any]:
        return sorted({key[axis] for key in self.places})

    def _nearest(self, drawn: tuple[Any, ...]) -> int | None:
        """Return the untried candidate nearest to the drawn values: not every combination exists."""
        family, weights, phi, resolution, precision, kept = drawn

        def distance(key: tuple[Any, ...]) -> tuple[float, ...]:
            others = (key[0] != family) + (key[1] != weights) + (key[4] != precision)
            return others, abs(math.log2(key[3] / resolution)) + abs(key[2] - phi) / 4 + abs(key[5] - kept)

        left = [key for key, index in self.places.items() if index not in self.drawn]
        return self.places[min(left, key=distance)] if left else None

    def _known(self, index: int) -> Candidate:
        """Return a candidate with the figures of its measurement."""
        candidate = self.table[index]
        if candidate.latency_ms is not None or not any(name in self.budget.asked() for name in _MEASURED):
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
        found = self.budget.with_margin().failures(known.figures)
        self.count += 1
        self.table[index] = dataclasses.replace(
            known, status="rejected" if found else "fits", reason="; ".join(found) or "meets every budget"
        )
        self._listener(Measured(candidate=self.table[index], number=self.count))
        return self.table[index]

    def adopt(self, study: "optuna.Study") -> None:
        """Write the accuracies of all finished trials into the table."""
        for trial in study.trials:
            index = self.places.get(tuple(trial.user_attrs.get("candidate", ())))
            value = trial.value
            if value is None and trial.intermediate_values:
                value = max(trial.intermediate_values.values())
            broken = any(excess > 0 for excess in (trial.constraints or {}).values())
            if index is None or not value or broken:
                continue
            done = max(trial.intermediate_values, default=ROUNDS)
            before = self.table[index]
            if before.trial_accuracy is None or (done, value) > (before.trial_rounds, before.trial_accuracy):
                self.table[index] = dataclasses.replace(before, trial_accuracy=value, trial_rounds=done)

    def conclude(self) -> list[Candidate]:
        """Take the best of those with the most rounds."""
        tried = [i for i, c in enumerate(self.table) if c.trial_accuracy is not None and c.status in ("taken", "fits")]
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
        return self.table


def _limits(candidate: Candidate, budget: Budget) -> list[tuple[str, float, float]]:
    figures = candidate.figures
    return [
        (name, limit, value)
        for name, limit in budget.with_margin().limits().items()
        if (value := figures[name]) is not None
    ]


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a folder for one trial's checkpoints and remove it afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix="trial-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
