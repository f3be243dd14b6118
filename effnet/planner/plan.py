"""Planning: the largest network that meets every budget, found by measuring few of many candidates."""

import dataclasses
from collections.abc import Callable, Sequence

from effnet.measurement.budget import LABELS, Budget, say
from effnet.planner.events import Listener
from effnet.planner.predict import MEASURED
from effnet.planner.search import Measure, Search, TrainingNeed, TrainSpeed
from effnet.planner.space import Candidate

# Smaller candidates that are measured as fallbacks for the taken one: each has at most this share of its MACs.
_FALLBACK_SHARES = (0.75, 0.5)
# One more if the taken one is int8: the best float candidate, in case int8 loses too much accuracy.
MAX_FALLBACKS = len(_FALLBACK_SHARES) + 1


def make_plan(
    candidates: Sequence[Candidate],
    budget: Budget,
    *,
    measure: Measure,
    train_speed: TrainSpeed,
    need: TrainingNeed | None = None,
    best: str = "largest",
    listener: Listener,
    late: Callable[[], bool] = lambda: False,
) -> list[Candidate]:
    """Return all candidates with their status; the chosen one has status "taken".

    Candidates come in order of preference, the most promising first; `best` is the word for it. Those over the
    analytic budgets are rejected; of the rest the first that may fit is measured, until the first that fits is found.
    Every budget keeps its margin free, a tenth of latency and memory. With a `need`, the network must also train that
    fast. Once planning is `late`, a candidate that is known to fit is taken. Raises BudgetError if nothing fits,
    naming the nearest budget that can be met.
    """
    table = [_analytic(candidate, budget) for candidate in candidates]
    search = Search(table, budget, measure=measure, train_speed=train_speed, need=need, listener=listener, late=late)
    taken = _best(search)
    # A measured fallback may have the taken one measured again: a latency that background load had hidden may be over.
    while search.table[taken].status == "rejected":
        taken = _best(search)
    search.table[taken] = dataclasses.replace(
        search.table[taken], status="taken", reason=f"the {best} that meets every budget with its margin"
    )
    _explain_rest(search, taken, best)
    return search.table


def _best(search: Search) -> int:
    """Return the best candidate that meets the budget, once its fallbacks are measured; raise BudgetError if none."""
    found = search.best_that_fits()
    taken = search.approach() if found is None else found
    for share in _FALLBACK_SHARES if search.measures else ():
        if not search.late():
            search.measure_fallback(taken, share)
    if search.measures and not search.late() and search.table[taken].precision == "int8":
        search.measure_fallback(taken, 1.0, floats=True)
    return taken


def _analytic(candidate: Candidate, budget: Budget) -> Candidate:
    """Reject a candidate that exceeds a budget without a measurement; weights and activations bound its memory."""
    weights = candidate.cost.weight_bytes("int8" if candidate.precision == "int8" else "fp32")
    maps = candidate.cost.peak_activations * (1 if candidate.precision == "int8" else 4)
    least_memory = (weights + maps) / 1e6
    found = budget.with_margin().failures(candidate.figures | {"memory_mb": least_memory})
    found = tuple(text.replace("peak memory ", "peak memory of at least ", 1) for text in found)
    return dataclasses.replace(candidate, status="rejected", reason="; ".join(found)) if found else candidate


def _explain_rest(search: Search, taken: int, word: str) -> None:
    """Give every candidate that was not measured its reason; `word` is the superlative of the taken one."""
    best = search.table[taken]
    for index, candidate in enumerate(search.table):
        smaller = word == "largest" and candidate.cost.macs <= best.cost.macs
        less = "smaller than" if smaller else "expected to be less accurate than"
        if candidate.status == "fits" and not candidate.reason:
            search.table[index] = dataclasses.replace(candidate, reason=f"meets every budget, {less} {best.title}")
        if candidate.status != "listed":
            continue
        if index > taken:
            reason = f"not measured: {less} {best.title}"
        else:
            parts = [
                f"{LABELS[key]} predicted at {say(key, search.predicted(index, key) or 0.0)}"
                for key in MEASURED
                if key in search.budget.asked()
            ]
            reason = f"not measured: {', '.join(parts) or 'as large as the taken one'}"
        search.table[index] = dataclasses.replace(candidate, status="unmeasured", reason=reason)
