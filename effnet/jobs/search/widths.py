"""The networks of a search, each as wide as its measured figures allow: predictions are only where that begins."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.jobs.fit.choice.measuring import measured_figures
from effnet.jobs.search.measured import figures_of
from effnet.jobs.search.worker import Worker
from effnet.nas.history import Trained
from effnet.nas.spaces.space import Genome
from effnet.nas.spaces.width import LEAST_SHARE
from effnet.planner.space import in_precision, only_candidate

# A measured network may use this share of the margin that planning leaves.
_MORE = 0.05
# A network is measured this many times at most, each time with another width.
_MOST = 4
# How much the measured share of the budget grows with the share that is predicted for the width, as a power.
_LEAST_POWER, _MOST_POWER = 0.3, 3.0

Figures = Mapping[str, float]
Measured = tuple[ArchSpec, Figures]
"""A network with its measured figures, by the keys of the budget."""


def network_of(worker: Worker, genome: Genome) -> tuple[ArchSpec, dict[str, Any]]:
    """Return the network to train for a genome, and fields of Trained: itself as data, its figures, those predicted.

    Where the plan measured networks, it is measured too, and as wide as that allows.
    """
    spec = worker.spec(genome)
    figures = worker.figures(spec)
    if not worker.plan.measured or worker.space.width is not None:
        return spec, {
            "figures": figures,
            "predicted": tuple(name for name in figures if name in worker.space.predictors),
        }
    known = dict(map(figures_of, worker.plan.measured)) if genome in worker.references else {}
    if spec in known:
        found: Figures = known[spec]
    else:
        spec, found = as_wide_as_allowed(worker, genome)
    figures = worker.figures(spec) | {name: found[name] for name in figures if name in found}
    return spec, {"figures": figures, "network": spec_to_dict(spec)}


def trained_network(worker: Worker, trained: Trained) -> ArchSpec:
    """Return the network of a training."""
    return worker.spec(trained.genome) if trained.network is None else spec_from_dict(dict(trained.network))


def meets(worker: Worker, figures: Figures) -> bool:
    """Return whether measured figures meet the budget."""
    share = worker.job.budget.with_margin().share(figures)
    return share <= 1 + _MORE and not worker.job.budget.exceeded(figures)


def as_wide_as_allowed(worker: Worker, genome: Genome) -> Measured:
    """Return a network with its measured figures, wider or narrower than predictions made it if these were wrong.

    It is the one nearest to the budget of those that meet it, or else of all that were measured.
    """
    found, tried, budget = worker.spec(genome), list[Measured](), worker.job.budget.with_margin()
    scale, shares = 1.0, dict[float, float]()
    while True:
        candidate = in_precision(only_candidate(found), worker.plan.precision)
        tried.append((found, measured_figures(candidate, worker.measure(candidate))))
        shares[scale] = max(budget.share(tried[-1][1]), 1e-9)
        if len(tried) == _MOST or LEAST_SHARE <= shares[scale] <= 1:
            break
        # A network of other objectives has the width that it was scored with, a reference that of its family.
        if worker.space.width is not None or genome in worker.references:
            break
        scale = _next(shares)
        limits = {name: limit * scale for name, limit in budget.asked().items()}
        wider = worker.space.at(dataclasses.replace(budget, **limits)).network(genome)  # type: ignore[arg-type]
        if wider is None or wider in dict(tried):
            break
        found = wider
    good = [each for each in tried if meets(worker, each[1])]
    return max(good or tried, key=lambda each: budget.share(each[1]) * (1 if good else -1))


def _next(shares: Mapping[float, float]) -> float:
    """Return the next scale of the limits that predictions must meet, from the measured shares of the scales so far.

    It lies on the line through the two that are nearest to the budget, in logarithms.
    """
    goal = math.log((LEAST_SHARE + 1) / 2)
    points = [(math.log(scale), math.log(share) - goal) for scale, share in shares.items()]
    below = max((p for p in points if p[1] <= 0), key=lambda p: p[1], default=None)
    above = min((p for p in points if p[1] > 0), key=lambda p: p[1], default=None)
    if below and above and above[0] > below[0]:
        return math.exp(below[0] - below[1] * (above[0] - below[0]) / (above[1] - below[1]))
    (x, y), power = min(points, key=lambda p: abs(p[1])), 1.0
    others = [p for p in points if p[0] != x]
    if others:
        other = min(others, key=lambda p: abs(p[1]))
        power = min(_MOST_POWER, max(_LEAST_POWER, (y - other[1]) / (x - other[0])))
    return math.exp(x - y / power)
