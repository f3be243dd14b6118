"""The search for the best candidate that meets a budget: predictions choose the few candidates to measure."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.errors import BudgetError, BundleError, BusyError
from effnet.measurement.budget import Budget
from effnet.measurement.speed.timing import Timing, busy_sentence
from effnet.planner.events import Listener, Measured
from effnet.planner.oracle import NEAR_MISS
from effnet.planner.predict import MEASURED, Predictions
from effnet.planner.refusal import refusal
from effnet.planner.space import Candidate

# The most measurements of a plan: each takes about a second; few plans need more than half of them.
MAX_MEASUREMENTS = 50
# Networks measured before the first prediction, spread over the range of MACs of each family.
_FIRST_MEASUREMENTS = 2
# A prediction must miss the budget by this share before a candidate is dropped unmeasured; each measured miss makes
# predictions more trustworthy and multiplies the share by the second number.
_DOUBT, _DOUBT_FALLS = 0.25, 0.7
# After the time limit of planning, a candidate is measured only if its predictions are this share below the budget.
_SURELY = 0.15
# Before a budget is refused, this many networks are measured whose predictions, or earlier measurements, miss it by
# less than these factors; and at least this many for the nearest budget that can be met.
_LAST_CHANCES, _DOUBTFUL, _NEAR, _LEAST_CHANCES = 16, 2.0, NEAR_MISS, 8
# The most measurements of one network; the network behind the advised budget gets this many.
_LOOKS = 4
# The number of measurements of a network whose latency contradicts the others'.
_DOUBTED_LOOKS = 3
# Optimism margin of predictions for families without measurements; shrinks as 1/sqrt(n) with them.
_OPTIMISM = 0.5
# Figures with noise; the advised limit is at most this factor of the least measurement.
_DIFFERING, _MOST_ADVISED = ("latency_ms", "memory_mb"), 1.2

Measure = Callable[[Candidate], Timing]
TrainSpeed = Callable[[ArchSpec], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingNeed:
    """The least speed of training: `images_per_second`, and the `reason` for it.

    Networks of more than `most_macs` are too slow on any machine of this kind; they are not even timed. If no network
    trains that fast, the need is halved at most `halvings` times.
    """

    images_per_second: float
    most_macs: float
    reason: str
    halvings: int = 0

    def halved(self) -> "TrainingNeed":
        """Return the need of half as many epochs."""
        return dataclasses.replace(
            self,
            images_per_second=self.images_per_second / 2,
            most_macs=2 * self.most_macs,
            halvings=self.halvings - 1,
        )


class TrainsTooSlowly(BudgetError):
    """No network that meets the budget trains fast enough."""


class Search:
    """The table during the search, and the predictions that choose the next measurement."""

    def __init__(
        self,
        table: list[Candidate],
        budget: Budget,
        *,
        measure: Measure,
        train_speed: TrainSpeed,
        need: TrainingNeed | None,
        listener: Listener,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        self.table, self.budget, self._measure, self._listener = table, budget, measure, listener
        self.late = late
        self._train_speed, self._need = train_speed, need
        self._predictions = Predictions(table)
        self.count = self.misses = 0
        self._chances = _LAST_CHANCES
        # Rejected for any budget: they cannot be measured, or not be trained in time.
        self._barred: set[int] = set()
        # Of these, the ones that train too slowly, as they were before.
        self._slow: dict[int, Candidate] = {}
        self._found: dict[int, list[dict[str, float]]] = {}
        # Those whose latency is hidden by background load, each with its sentence.
        self._hidden: dict[int, str] = {}
        # Counts are known without a measurement.
        self.measures = any(key in budget.asked() for key in MEASURED)

    def measure(self, index: int) -> bool:
        """Measure one candidate, re-measure contradictory ones; return whether it meets the budget with its margins."""
        self._measure_once(index)
        if "latency_ms" in self.budget.asked() and not self.late():
            for doubted in self._doubted():
                for _ in range(_DOUBTED_LOOKS - len(self._found[doubted])):
                    if self.count < MAX_MEASUREMENTS:
                        self._measure_once(doubted)
        return self.table[index].status == "fits"

    def _doubted(self) -> list[int]:
        """Return the candidates to re-measure, because the others predict a much lower latency."""
        took = {i: min(figures["latency_ms"] for figures in self._found[i]) for i in self._found}
        return [
            i
            for i in took
            if i not in self._barred and len(self._found[i]) < _DOUBTED_LOOKS and self._predictions.doubts(i, took)
        ]

    def _measure_once(self, index: int) -> None:
        """Measure one candidate; return whether it meets the budget with its margin."""
        self.count += 1
        try:
            timing = self._measure(self.table[index])
        except BundleError as error:
            if index in self._found:  # the earlier measurement still holds
                return
            reason = f"could not be measured: {error}"
            self._bar(index, reason)
            # Most likely out of time or memory; larger networks would fail too, but for those that did not.
            half = 0.5 * self.table[index].cost.macs
            self._reject(lambda c: c.cost.macs > half and c.status != "fits", f"{self.table[index].title} {reason}")
            return
        known = dataclasses.replace(self.table[index], **self._figures(index, timing))  # type: ignore[arg-type]
        found = self.budget.with_margin().failures(known.figures)
        known = dataclasses.replace(known, status="rejected" if found else "fits", reason="; ".join(found))
        self.table[index] = known
        self._predictions.forget()
        self.misses += bool(found)
        self._listener(Measured(candidate=known, number=self.count))

    def _figures(self, index: int, timing: Timing) -> dict[str, float]:
        """Return a candidate's figures: the least of its measurements, since other processes only ever add.

        A latency without background load replaces one that was hidden by it.
        """
        found = {"latency_ms": timing.latency_ms, "memory_mb": timing.memory_mb, "size_mb": timing.size_mb}
        before = self._found.setdefault(index, [])
        if timing.uncertain and before and index not in self._hidden:
            found["latency_ms"] = min(figures["latency_ms"] for figures in before)
            return self._least(index, found)
        if index in self._hidden and not timing.uncertain:
            del self._hidden[index]
            for figures in before:
                figures["latency_ms"] = timing.latency_ms
        if timing.uncertain:
            self._hidden[index] = busy_sentence(timing.waited, threads=timing.threads, uncertain=True)
        return self._least(index, found) | {"waited": timing.waited}

    def _least(self, index: int, found: dict[str, float]) -> dict[str, float]:
        self._found[index].append(found)
        return {name: min(figures[name] for figures in self._found[index]) for name in found}

    def best_that_fits(self) -> int | None:
        """Return the index of the first, and so best, candidate that meets every budget and trains in time.

        If none trains in time, one that does so in half the epochs, and so on.
        """
        self._reject_large()
        if self.measures and not self.count:  # not again where the one that was found gives way
            self._measure_spread()
        while True:
            index = self._next()
            if index is None and self._lower_need():
                continue
            if index is None:
                # Predictions alone do not refuse a budget: the networks predicted to come nearest are measured.
                nearest = self._nearest(self._may_fit) if self._chances else None
                if nearest is None:
                    return None
                self._chances -= 1
                self.measure(nearest)
                continue
            candidate = self.table[index]
            if self.measures and candidate.status == "listed" and not self.measure(index):
                continue
            if self._trains_in_time(index):
                return index

    def _reject_large(self) -> None:
        if (need := self._need) is not None:
            self._reject(
                lambda c: c.cost.macs > need.most_macs, f"training would be too slow, {need.reason}", slow=True
            )

    def _lower_need(self) -> bool:
        """Halve the need, if networks were rejected only for their training speed; return whether it was."""
        if self._need is None or not self._need.halvings or not self._slow:
            return False
        self._need = self._need.halved()
        for index, candidate in self._slow.items():
            self._barred.discard(index)
            self.table[index] = candidate
        self._slow.clear()
        self._reject_large()
        return True

    def _trains_in_time(self, index: int) -> bool:
        """Return whether a candidate trains fast enough; reject it if not, with those that must be as slow.

        Training speed depends on activations more than on MACs; half as much again is left as a margin.
        """
        candidate, need = self.table[index], self._need
        if need is None or (speed := self._train_speed(candidate.spec)) >= need.images_per_second:
            return True
        reason = f"trains {speed:.3g} images/s, {need.reason}"
        self._bar(index, reason, slow=True)
        share = max(0.02, min(0.95, 1.5 * speed / need.images_per_second))
        most = share * candidate.cost.activations
        reason = f"training would be too slow: {candidate.title} {reason}"
        self._reject(lambda c: c.cost.activations > most, reason, slow=True)
        return False

    def _reject(self, wrong: Callable[[Candidate], bool], reason: str, *, slow: bool = False) -> None:
        for index, candidate in enumerate(self.table):
            if wrong(candidate):
                self._bar(index, reason, slow=slow)

    def _bar(self, index: int, reason: str, *, slow: bool = False) -> None:
        """Reject a candidate for every budget, or until the need is lowered; an earlier reason remains."""
        self._barred.add(index)
        if self.table[index].status in ("listed", "fits"):
            if slow:
                self._slow[index] = self.table[index]
            self.table[index] = dataclasses.replace(self.table[index], status="rejected", reason=reason)

    def _measure_spread(self) -> None:
        """Measure a few networks of each kind, over the range of MACs, as the basis of predictions.

        After the time limit of planning, one that is known to fit is enough.
        """
        for kind in dict.fromkeys(_kind(c) for c in self.table):
            precision = kind[1]
            if precision not in ("fp32", "bf16", "int8"):  # the others compute in fp32
                continue
            open_ = [i for i, c in enumerate(self.table) if _kind(c) == kind and c.status == "listed"]
            # Huge networks take long and predict little for small ones: the top of the range is the median.
            for place in np.linspace(0.4, 0.9, _FIRST_MEASUREMENTS if precision == "fp32" else 1):
                if self.late() and any(c.status == "fits" for c in self.table):
                    return
                if open_:
                    index = open_[min(len(open_) - 1, int(place * len(open_)))]
                    if self.table[index].status == "listed":
                        self.measure(index)

    def _next(self) -> int | None:
        """Return the largest candidate that fits or, by its prediction, may fit.

        After the time limit of planning, one that is known to fit is enough.
        """
        if self.late():
            known = (i for i, c in enumerate(self.table) if c.status == "fits" and i not in self._barred)
            if (index := next(known, None)) is not None:
                return index
        for index, candidate in enumerate(self.table):
            if candidate.status == "fits":
                return index
            if not self.measures and candidate.status == "listed":
                return index
            may_measure = candidate.status == "listed" and self.count < MAX_MEASUREMENTS
            if may_measure and not self._predicted_over(index):
                return index
        return None

    def _nearest(self, among: Callable[[int], bool]) -> int | None:
        """Return the candidate, among those that `among` accepts, predicted to exceed the budget by the least share."""
        open_ = [i for i in range(len(self.table)) if i not in self._barred and among(i)]
        return min(open_, key=self._share, default=None)

    def _may_fit(self, index: int) -> bool:
        """Return whether another measurement might show that a candidate meets the budget."""
        if index in self._found:
            return len(self._found[index]) < _LOOKS and self._share(index) < _NEAR
        return self.table[index].status == "listed" and self._share(index) < _DOUBTFUL

    def _share(self, index: int) -> float:
        return self.budget.with_margin().share(self._expected(index))

    def _expected(self, index: int) -> dict[str, float | None]:
        """Return a candidate's figures, or the lower bounds of its predictions if it was not measured."""
        candidate = self.table[index]
        if index in self._found or not self.measures:
            return candidate.figures
        known = sum(_kind(self.table[i]) == _kind(candidate) for i in self._found)
        share = 1 - _OPTIMISM / math.sqrt(1 + known)
        figures, asked = candidate.figures, self.budget.asked()
        for name in MEASURED:
            if name in asked:  # a file has at least the size of its weights
                figures[name] = max(figures[name] or 0.0, share * (self.predicted(index, name) or 0.0))
        return figures

    def _predicted_over(self, index: int) -> bool:
        limits = self.budget.with_margin().limits()
        for key in limits.keys() & MEASURED:
            predicted = self.predicted(index, key)
            doubt = -_SURELY if self.late() else _DOUBT * _DOUBT_FALLS**self.misses
            if predicted is not None and predicted > limits[key] * (1 + doubt):
                return True
        return False

    def predicted(self, index: int, key: str) -> float | None:
        """Return the predicted latency in ms or memory in MB, or None before any measurement."""
        return self._predictions.of(index, key)

    def approach(self) -> int:
        """Measure the candidates nearest to the whole budget until the nearest is known; return it if it fits.

        Raises BudgetError with its figures otherwise.
        """
        most = self.count + max(self._chances, _LEAST_CHANCES)

        def may_be_told(index: int) -> bool:
            return not self.measures or index in self._found or self.count < most

        while (index := self._nearest(may_be_told)) is not None:
            if self.measures and index not in self._found:
                self.measure(index)
            elif self._trains_in_time(index):
                figures = self._surely(index)
                if self.table[index].status == "fits":
                    return index
                said = refusal(self.table, self.budget, self.table[index], figures)
                if index in self._hidden and "latency_ms" in self.budget.asked():
                    raise BusyError(f"{self._hidden[index]}. By the fastest runs, {said}")
                raise BudgetError(said)
        if self._need is None:
            raise BudgetError("no network could be measured on this machine")
        raise TrainsTooSlowly(
            f"no network that meets the budget can be trained in time: {self._need.reason}; give more --minutes, or "
            "--epochs"
        )

    def _surely(self, index: int) -> dict[str, float | None]:
        """Return the upper bounds of a candidate's figures if it is re-measured, from its measurements so far.

        The bound is as far above the largest value as the least is below it, to allow for unseen values, but not above
        what background load adds: planning re-measures those.
        """
        figures = self.table[index].figures
        if not self.measures:
            return figures
        if any(name in self.budget.asked() for name in _DIFFERING):
            for _ in range(_LOOKS - len(self._found[index])):
                self._measure_once(index)
        for name in MEASURED:
            found = [each[name] for each in self._found[index]]
            figures[name] = min(2 * max(found) - min(found), _MOST_ADVISED * min(found))
        return figures

    def measure_fallback(self, taken: int, share: float, *, floats: bool = False) -> None:
        """Measure the best likely candidate of the same weights with at most this share of the taken one's MACs.

        With `floats` int8 candidates are excluded.
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


def _kind(candidate: Candidate) -> tuple[str, str]:
    return candidate.family, candidate.precision
