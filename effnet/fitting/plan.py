"""Planning: the largest network that keeps every budget, found by measuring few of many candidates."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.errors import BudgetError, BundleError
from effnet.fitting.budget import LABELS, MARGINS, Budget, failures, say, say_at_least
from effnet.fitting.candidates import Candidate
from effnet.fitting.events import Listener, Measured
from effnet.fitting.predicting import MEASURED, Predictions
from effnet.measure.timing import Timing

# Measuring takes about a second each; few plans need more than half of these.
MAX_MEASUREMENTS = 50
# Networks measured before the first prediction, spread over the range of MACs of each family.
_FIRST_MEASUREMENTS = 2
# A prediction must miss the budget by this share before a candidate is dropped unmeasured; each measurement that
# does miss makes predictions more trustworthy, and the share that much smaller.
_DOUBT, _DOUBT_FALLS = 0.25, 0.7
# How many networks are measured against their prediction before a budget is refused.
_LAST_CHANCES = 3
# Smaller candidates measured behind the taken one, to fall back on: each this share of its MACs at the most.
_FALLBACK_SHARES = (0.75, 0.5)
# One more where the taken one computes in 8 bits: the best that does not, for where 8 bits lose too much.
MAX_FALLBACKS = len(_FALLBACK_SHARES) + 1

Measure = Callable[[Candidate], Timing]
TrainSpeed = Callable[[ArchSpec], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingNeed:
    """How fast training must be: `images_per_second`, and the words that explain it.

    Networks of more than `most_macs` are too slow on any machine of this kind; they are not even timed.
    """

    images_per_second: float
    most_macs: float
    reason: str


def make_plan(
    candidates: Sequence[Candidate],
    budget: Budget,
    *,
    measure: Measure,
    train_speed: TrainSpeed,
    need: TrainingNeed | None = None,
    best: str = "largest",
    listener: Listener,
) -> list[Candidate]:
    """Returns all candidates with their fates; the one taken has status "taken".

    Candidates come in the order in which they are wanted, the most promising first; `best` is the word for it. Those
    over the analytic budgets are rejected; of the rest the first that may fit is measured, until none before it is
    left. Every budget keeps its margin, a tenth of latency and memory. With a `need`, the network must also train that
    fast. Raises BudgetError where nothing fits, naming the nearest budget that can be met.
    """
    table = [_analytic(candidate, budget) for candidate in candidates]
    search = _Search(table, budget, measure, listener)
    taken = search.best_that_fits(train_speed, need)
    if taken is None:
        search.measure_least()
        raise BudgetError(_nothing_fits(search.table, budget, need))
    search.table[taken] = dataclasses.replace(
        search.table[taken], status="taken", reason=f"the {best} that keeps every budget with its margin"
    )
    for share in _FALLBACK_SHARES if search.measures else ():
        search.measure_fallback(taken, share)
    if search.measures and search.table[taken].precision == "int8":
        search.measure_fallback(taken, 1.0, floats=True)
    search.explain_rest(taken, best)
    return search.table


def _analytic(candidate: Candidate, budget: Budget) -> Candidate:
    """Rejects what exceeds a budget whatever a measurement says; weights alone are a bound for memory."""
    weights = candidate.cost.weight_bytes("int8" if candidate.precision == "int8" else "fp32")
    maps = candidate.cost.peak_activations * (1 if candidate.precision == "int8" else 4)
    least_memory = (weights + maps) / 1e6
    found = failures(budget, candidate.figures | {"memory_mb": least_memory}, planning=True)
    found = tuple(text.replace("peak memory ", "peak memory of at least ", 1) for text in found)
    return dataclasses.replace(candidate, status="rejected", reason="; ".join(found)) if found else candidate


class _Search:
    """The table under way, and the predictions that say what to measure next."""

    def __init__(self, table: list[Candidate], budget: Budget, measure: Measure, listener: Listener) -> None:
        self.table, self.budget, self._measure, self._listener = table, budget, measure, listener
        self._predictions = Predictions(table)
        self.count = self.misses = 0
        # What is only counted is known without measuring anything.
        self.measures = any(key in budget.asked() for key in MEASURED)

    def measure(self, index: int) -> bool:
        """Measures one candidate and returns whether it keeps the budget with its margin."""
        self.count += 1
        try:
            timing = self._measure(self.table[index])
        except BundleError as error:
            reason = f"could not be measured: {error}"
            self.table[index] = dataclasses.replace(self.table[index], status="rejected", reason=reason)
            # Out of time or memory, most likely; its neighbours would fare alike.
            half = 0.5 * self.table[index].cost.macs
            self._reject(lambda c: c.cost.macs > half, f"{self.table[index].spec.name} {reason}")
            return False
        known = dataclasses.replace(
            self.table[index], latency_ms=timing.p50_ms, memory_mb=timing.memory_mb, size_mb=timing.size_mb
        )
        found = failures(self.budget, known.figures, planning=True)
        known = dataclasses.replace(known, status="rejected" if found else "fits", reason="; ".join(found))
        self.table[index] = known
        self._predictions.forget()
        self.misses += bool(found)
        self._listener(Measured(candidate=known, number=self.count))
        return not found

    def best_that_fits(self, train_speed: TrainSpeed, need: TrainingNeed | None) -> int | None:
        """Returns the index of the first, and so best, candidate that keeps every budget and trains in time."""
        if need is not None:
            self._reject(lambda c: c.cost.macs > need.most_macs, f"training would be too slow, {need.reason}")
        if self.measures:
            self._measure_spread()
        last_chances = _LAST_CHANCES
        while True:
            index = self._next()
            if index is None:
                # Predictions alone do not refuse a budget: the network that should come nearest is measured.
                last_chances -= 1
                may_measure = last_chances >= 0 and self.count < MAX_MEASUREMENTS
                nearest = self._nearest_listed() if may_measure else None
                if nearest is None:
                    return None
                self.measure(nearest)
                continue
            candidate = self.table[index]
            if self.measures and candidate.status == "listed" and not self.measure(index):
                continue
            if need is None or (speed := train_speed(candidate.spec)) >= need.images_per_second:
                return index
            self._reject_slower(index, speed, need)

    def _reject_slower(self, index: int, speed: float, need: TrainingNeed) -> None:
        """Rejects a candidate that trains too slowly, and those that must train as slowly.

        Training speed goes with activations more than with MACs; half as much again is left for what it does not.
        """
        candidate = self.table[index]
        reason = f"trains {speed:.3g} images/s, {need.reason}"
        self.table[index] = dataclasses.replace(candidate, status="rejected", reason=reason)
        share = max(0.02, min(0.95, 1.5 * speed / need.images_per_second))
        most = share * candidate.cost.activations
        self._reject(lambda c: c.cost.activations > most, f"training would be too slow: {candidate.spec.name} {reason}")

    def _reject(self, wrong: Callable[[Candidate], bool], reason: str) -> None:
        for index, candidate in enumerate(self.table):
            if candidate.status in ("listed", "fits") and wrong(candidate):
                self.table[index] = dataclasses.replace(candidate, status="rejected", reason=reason)

    def _measure_spread(self) -> None:
        """Measures a few networks of each kind, over the range of MACs, for the predictions to stand on."""
        for family, precision in dict.fromkeys((c.family, c.precision) for c in self.table):
            if precision not in ("fp32", "bf16", "int8"):  # they compute as in 32 bits
                continue
            open_ = [i for i, c in enumerate(self.table) if _is(c, family, precision) and c.status == "listed"]
            # Huge ones take long and say little about the small ones: the top of the range is the median.
            for share in np.linspace(0.4, 0.9, _FIRST_MEASUREMENTS if precision == "fp32" else 1):
                if open_:
                    index = open_[min(len(open_) - 1, int(share * len(open_)))]
                    if self.table[index].status == "listed":
                        self.measure(index)

    def _next(self) -> int | None:
        """Returns the largest candidate that fits or, as far as can be told, may fit."""
        for index, candidate in enumerate(self.table):
            if candidate.status == "fits":
                return index
            if not self.measures and candidate.status == "listed":
                return index
            may_measure = candidate.status == "listed" and self.count < MAX_MEASUREMENTS
            if may_measure and not self._predicted_over(index):
                return index
        return None

    def _nearest_listed(self) -> int | None:
        """Returns the unmeasured candidate with the least predicted excess over the budget."""
        open_ = [i for i, c in enumerate(self.table) if c.status == "listed"]
        limits = {key: limit for key, limit in self.budget.asked().items() if key in MEASURED}

        def excess(index: int) -> float:
            return max(((self.predicted(index, key) or 0.0) / limit for key, limit in limits.items()), default=0.0)

        return min(open_, key=excess, default=None)

    def _predicted_over(self, index: int) -> bool:
        for key in MEASURED:
            limit = self.budget.asked().get(key)
            predicted = self.predicted(index, key) if limit is not None else None
            if limit is None or predicted is None:
                continue
            if predicted > limit * (1 - MARGINS[key]) * (1 + _DOUBT * _DOUBT_FALLS**self.misses):
                return True
        return False

    def predicted(self, index: int, key: str) -> float | None:
        """Returns the predicted latency in ms or memory in MB, or None before anything was measured."""
        return self._predictions.of(index, key)

    def measure_least(self) -> None:
        """Measures the network that should come nearest to each budget, whatever refused it before."""
        for key in self.budget.asked():
            if key not in MEASURED:
                continue

            def expected(index: int, key: str = key) -> float:
                candidate = self.table[index]
                known = candidate.figures[key]
                measured = candidate.latency_ms is not None
                return known if measured else self.predicted(index, key) or candidate.size_mb

            nearest = min(range(len(self.table)), key=expected)
            if self.table[nearest].latency_ms is None:
                self.measure(nearest)

    def measure_fallback(self, taken: int, share: float, *, floats: bool = False) -> None:
        """Measures the best likely candidate of the same weights with at most this share of the taken one's MACs.

        With `floats` only those that do not compute in 8 bits count.
        """
        limit = share * self.table[taken].cost.macs
        for index, candidate in enumerate(self.table):
            likely = candidate.cost.macs <= limit and candidate.status in ("listed", "fits")
            likely = likely and candidate.weights == self.table[taken].weights
            likely = likely and not (floats and candidate.precision == "int8")
            if likely and not self._predicted_over(index):
                if candidate.status == "listed":
                    self.measure(index)
                return

    def explain_rest(self, taken: int, word: str) -> None:
        """Gives every candidate that was not measured its reason; `word` is what the taken one is most."""
        best = self.table[taken]
        for index, candidate in enumerate(self.table):
            smaller = word == "largest" and candidate.cost.macs <= best.cost.macs
            less = "smaller than" if smaller else "expected to be less accurate than"
            if candidate.status == "fits" and not candidate.reason:
                self.table[index] = dataclasses.replace(
                    candidate, reason=f"keeps every budget, {less} {best.spec.name}"
                )
            if candidate.status != "listed":
                continue
            if index > taken:
                reason = f"not measured: {less} {best.spec.name}"
            else:
                parts = [
                    f"{LABELS[key]} predicted at {say(key, self.predicted(index, key) or 0.0)}"
                    for key in MEASURED
                    if key in self.budget.asked()
                ]
                reason = f"not measured: {', '.join(parts) or 'as large as the taken one'}"
            self.table[index] = dataclasses.replace(candidate, status="unmeasured", reason=reason)


def _is(candidate: Candidate, family: str, precision: str) -> bool:
    return candidate.family == family and candidate.precision == precision


def _subject(table: Sequence[Candidate]) -> str:
    """Names all candidates, none of which will do."""
    sources = sorted({candidate.weights for candidate in table})
    if sources == [""]:
        return "no network that effnet knows for these pictures"
    return f"no resolution of {sources[0]}" if len(sources) == 1 else "no pretrained network, at whatever resolution,"


def _nothing_fits(table: Sequence[Candidate], budget: Budget, need: TrainingNeed | None) -> str:
    """Names the budget that cannot be met and the nearest that can."""
    lines = []
    for name, limit in budget.asked().items():
        # The size of a file is more than that of its weights: only measured ones count, as for latency and memory.
        known = [c for c in table if name in ("params", "macs") or c.latency_ms is not None]
        if not known:
            continue
        least = min(known, key=lambda c: c.figures[name])  # type: ignore[arg-type, return-value]
        value, margin = least.figures[name] or 0.0, MARGINS[name]
        if value > limit * (1 - margin):
            nearest = say_at_least(name, value / (1 - margin))
            left = f" with a margin of {margin:.0%}" if margin else ""
            lines.append(
                f"{_subject(table)} has {LABELS[name]} of at most {say(name, limit)}{left}: the least is "
                f"{least.spec.name} with {say(name, value)}, "
                f"so ask for {nearest} or more"
            )
    if not lines and need is not None:
        lines.append(
            f"no network that keeps the budget can be trained in time: {need.reason}; give more --minutes, or --epochs"
        )
    if not lines and not budget.asked():
        lines.append("no network could be measured on this machine")
    if not lines:
        asked = ", ".join(f"{LABELS[name]} {say(name, limit)}" for name, limit in budget.asked().items())
        lines.append(f"no network keeps all of these together: {asked}; each alone could be met")
    return "; ".join(lines)
