"""The objective of a running search; the exponent of a product may be calibrated around the budget."""

import dataclasses
import math
from collections.abc import Callable

from effnet.arch.spec import ArchSpec
from effnet.jobs.search.checks import config_of
from effnet.jobs.search.worker import Worker
from effnet.measurement.budget import Budget
from effnet.nas.objective import PUBLISHED_WEIGHT, Objective, calibrated_weight
from effnet.nas.study import Unit, seed_of

# The generation of the networks that calibrate the exponent, below and above the budget.
_CALIBRATION, _AROUND = -3, (1 / math.sqrt(2), math.sqrt(2))
# The figure that an objective weighs is the first of these that the budget limits.
_FIGURES = ("latency_ms", "macs", "size_mb", "memory_mb", "params")

Value = Callable[[ArchSpec, int], float]
"""Trains a network briefly with a seed, and returns the task's figure."""


def objective_of(worker: Worker, value: Value) -> Objective:
    """Return the objective, the same for all workers: `value` calibrates the exponent of a product once."""
    config = config_of(worker.job)
    limits = worker.job.budget.with_margin().limits()
    figure = next(name for name in _FIGURES if name in limits)
    found = Objective(form=config.objective, figure=figure, target=limits[figure], strict_paper=config.strict_paper)
    if config.exponent is not None:
        return dataclasses.replace(found, alpha=config.exponent, beta=config.exponent)
    if config.objective != "product" or config.strict_paper:
        return found
    weight = _calibrated(worker, figure, value)
    worker.job.say(f"The exponent of the objective, calibrated around the budget, is {weight:.3f}")
    return dataclasses.replace(found, alpha=weight, beta=weight)


def _calibrated(worker: Worker, figure: str, value: Value) -> float:
    """Return the exponent from scaled networks below and above the budget, each with the final's number of seeds.

    It is the published one if there are no scaled networks on both sides.
    """
    limit = worker.space.budget.asked()[figure]
    specs = [_scaled(worker, Budget(**{figure: limit * factor})) for factor in _AROUND]  # type: ignore[arg-type]
    below, above = specs
    if below is None or above is None:
        return PUBLISHED_WEIGHT
    seeds = worker.job.procedure.search.seeds
    units = {Unit(_CALIBRATION, slot): (below, above)[slot % 2] for slot in range(2 * seeds)}
    done = worker.study.in_turn(
        list(units), lambda unit: {"value": value(units[unit], seed_of(worker.extent.key, *unit))}
    )
    means = [sum(row["value"] for unit, row in done.items() if units[unit] is spec) / seeds for spec in (below, above)]
    return calibrated_weight(*means)


def _scaled(worker: Worker, budget: Budget) -> ArchSpec | None:
    """Return the uniformly scaled network at a budget that is nearest to compound scaling."""
    space = worker.space.at(budget)
    return next((spec for genome in space.baselines if (spec := space.network(genome)) is not None), None)
