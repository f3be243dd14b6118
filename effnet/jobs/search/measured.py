"""The networks that a search measures first: predictions are fitted to them, and what fit would take is known."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import BudgetError
from effnet.jobs.fit.choice.measuring import measured_figures
from effnet.jobs.fit.deploy.device import device_of, predicted_figures
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.reading import Source
from effnet.jobs.search.checks import config_of
from effnet.measurement.budget import Budget, say
from effnet.measurement.profile.regression import median_error
from effnet.measurement.profile.table import fit_latency, fit_memory
from effnet.measurement.speed.timing import Timing
from effnet.nas.spaces.genomes import generator, sample
from effnet.nas.spaces.macro import MacroSpace, macro_space
from effnet.nas.spaces.width import Predictor
from effnet.planner.events import Counted
from effnet.planner.predict import MEASURED
from effnet.planner.refusal import enough
from effnet.planner.space import Candidate, in_precision, list_candidates, only_candidate, weights_mb

# Predictions of networks that miss by less in the median need no more measurements.
_GOOD_ERROR = 0.04
# A scaled network is measured if predictions give it at most this share of the budget: of tiny networks they are off
# by up to a factor of two. After one that exceeds the budget, what is tried next is smaller by the excess and this
# factor, but by no more than the least step, since the excess of a much larger network says little.
_DOUBTFUL, _CLOSER, _LEAST_STEP = 2.0, 0.95, 0.7


def space_of(
    job: Job, source: Source, precision: Precision, measured: Sequence[Mapping[str, Any]], *, base: str = "b0"
) -> MacroSpace:
    """Return the space of networks around the budget, whose predictions are fitted to the measured ones.

    Its networks are like `base`, unless another one is requested.
    """
    predictors = _predictors(job, precision, measured)
    return _space(job, source, precision, job.budget.with_margin(), predictors, scaled=False, base=base)


def _space(
    job: Job,
    source: Source,
    precision: Precision,
    budget: Budget,
    predictors: Mapping[str, Predictor],
    *,
    scaled: bool = True,
    base: str = "b0",
) -> MacroSpace:
    """Return the space around a budget; `scaled` off leaves costs to an objective that weighs them."""
    dataset, config = source.dataset, config_of(job)
    return macro_space(
        _base(job, precision, base),
        num_classes=len(dataset.class_names),
        channels=dataset.channels,
        short_side=source.report.median_short_side,
        budget=budget,
        predictors=predictors,
        precision="int8" if precision == "int8" else "fp32",
        scaled=scaled or config.objective == "accuracy",
        limited=not config.strict_paper,
    )


def _base(job: Job, precision: Precision, name: str = "b0") -> ArchSpec:
    """Return the base of this name, or the requested one; for int8 with activations that runtimes compute fast."""
    asked = config_of(job).base
    base = get_spec(name if asked == "auto" else asked)
    if precision == "int8" and base.activation == "silu":
        lineage = dataclasses.replace(base.lineage, variant="relu6")
        return dataclasses.replace(base, lineage=lineage, activation="relu6", se_gate="hard_sigmoid")
    return base


def _predictors(job: Job, precision: Precision, measured: Sequence[Mapping[str, Any]]) -> dict[str, Predictor]:
    """Return what predicts latency and memory: the profile of another device, or a fit to the measured networks."""
    device = device_of(job)
    if device is not None:

        def predictor(key: str) -> Predictor:
            return lambda spec: predicted_figures(device, spec, precision)[key]

        return {key: predictor(key) for key in device.keys if key in job.budget.asked()}
    if not measured:
        return {}
    specs = [spec_from_dict(row["spec"]) for row in measured]
    fits = {"latency_ms": fit_latency, "memory_mb": fit_memory}
    asked = [key for key in fits if key in job.budget.asked()]
    found: dict[str, Predictor] = {key: fits[key](specs, [row[key] for row in measured]).predict for key in asked}
    if "size_mb" in job.budget.asked():
        # A file holds its graph beside its weights: for each layer the most of those that were measured.
        rest = max(
            (row["size_mb"] - _weights_mb(spec, precision)) / len(named_layers(spec))
            for spec, row in zip(specs, measured, strict=True)
        )
        found["size_mb"] = lambda spec: _weights_mb(spec, precision) + rest * len(named_layers(spec))
    return found


def _weights_mb(spec: ArchSpec, precision: Precision) -> float:
    return weights_mb(in_precision(only_candidate(spec), precision))


def measure_networks(
    job: Job, source: Source, precision: Precision, measure: Callable[[Candidate], Timing]
) -> tuple[Mapping[str, Any], ...]:
    """Return networks with their measured latency and memory: scaled ones around the budget, then random ones."""
    asked = [key for key in MEASURED if key in job.budget.asked()]
    if not asked or device_of(job) is not None:
        return ()
    job.say(f"Measuring networks in {job.target.runtime}, to predict others", heading=True)
    rows, policy = list[Mapping[str, Any]](), job.procedure.search
    total = len(policy.phis) + sum(policy.measured)

    def add(spec: ArchSpec) -> Mapping[str, float]:
        rows.append(_row(spec, measure(in_precision(only_candidate(spec), precision))))
        job.listener(Counted(label="networks measured", done=len(rows), total=total))
        return figures_of(rows[-1])[1]

    macs = _measure_scaled(job, source, precision, add)
    # Networks of equal MACs are the first that tell what else costs time.
    try:
        equal = _space(job, source, precision, Budget(macs=macs), {})
    except BudgetError as refused:
        raise BudgetError(_too_tight(job, rows)) from refused
    for spec in drawn(equal, policy.measured[0], seed=job.seed, number=0):
        add(spec)
    for number, count in enumerate(policy.measured[1:], 1):
        space = space_of(job, source, precision, rows)
        specs = drawn(space, count, seed=job.seed, number=number)
        predicted = [space.predictors[asked[0]](spec) for spec in specs]
        error = median_error(predicted, [add(spec)[asked[0]] for spec in specs])
        if error < _GOOD_ERROR:
            break
    what = {"latency_ms": "latencies", "memory_mb": "memory", "size_mb": "sizes"}[asked[0]]
    job.say(
        f"The {what} of {len(rows)} networks were measured; those of the last {count} had been predicted to {error:.1%}"
    )
    return tuple(rows)


def _too_tight(job: Job, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the refusal of a budget that even the smallest networks exceed."""
    least = min(rows, key=job.budget.share)
    figures = {name: least[name] for name in job.budget.asked() if name in least}
    found = ", ".join(say(name, value) for name, value in figures.items())
    title = spec_from_dict(least["spec"]).title
    return (
        f"no network of this search has {job.budget.in_words()}: the least that was measured is {title} with {found}, "
        f"so ask for {enough(job.budget, figures)}"
    )


def drawn(space: MacroSpace, count: int, *, seed: int, number: int) -> list[ArchSpec]:
    """Return random networks of a space."""
    drawn = (sample(space.decisions, rng=generator(seed, number, slot)) for slot in range(8 * count))
    found = list(islice((spec for genome in drawn if (spec := space.network(genome)) is not None), count))
    return found or [spec for genome in space.baselines if (spec := space.network(genome)) is not None]


def _measure_scaled(
    job: Job, source: Source, precision: Precision, add: Callable[[ArchSpec], Mapping[str, float]]
) -> float:
    """Measure uniformly scaled networks, until two exceed the budget; return the MACs at which one meets it."""
    dataset, over = source.dataset, 0
    base = dataclasses.replace(
        _base(job, precision), num_classes=len(dataset.class_names), in_channels=dataset.channels, padding="symmetric"
    )
    shares = []
    for phi in job.procedure.search.phis:
        spec = scale(base, phi=phi)
        side = max(16, min(spec.resolution, source.report.median_short_side))
        spec = dataclasses.replace(spec, resolution=side)
        share = job.budget.share(add(spec))
        shares.append((share, cost(spec).macs))
        over += share > 1
        if over == 2:
            break
    share, macs = max((each for each in shares if each[0] <= 1), default=min(shares))
    return macs / max(1.0, share)


def figures_of(row: Mapping[str, Any]) -> tuple[ArchSpec, dict[str, float]]:
    """Return a measured network with its figures."""
    return spec_from_dict(row["spec"]), {name: value for name, value in row.items() if name != "spec"}


def references_of(
    job: Job,
    source: Source,
    precision: Precision,
    measured: Sequence[Mapping[str, Any]],
    measure: Callable[[Candidate], Timing],
) -> tuple[list[ArchSpec], tuple[Mapping[str, Any], ...]]:
    """Return the networks that `fit` finds most promising within the budget, and the rows of those measured for it.

    They are one of each family and total stride, and keep the comparison honest: a search must beat what effnet gives
    without one. Figures that are not analytic are measured, as fit measures them, if they can be.
    """
    dataset, space = source.dataset, space_of(job, source, precision, measured)
    table = list_candidates(
        num_classes=len(dataset.class_names),
        channels=dataset.channels,
        short_side=source.report.median_short_side,
        precisions=(precision,),
    )
    if measured:
        job.say("Measuring the networks that fit would choose")
    found: dict[tuple[str, int], ArchSpec] = {}
    # The predicted share of the budget that a kind of network may have, mended by each measurement.
    limits, rows, budget = dict[tuple[str, int], float](), list[Mapping[str, Any]](), job.budget.with_margin()
    for kind, candidate in _by_family(table, found):
        if len(found) == job.procedure.search.references:
            break
        share = space.share(candidate.spec)
        if share > limits.get(kind, _DOUBTFUL if measured else 1.0):
            continue
        if measured:
            timing = measure(in_precision(candidate, precision))
            rows.append(_row(candidate.spec, timing))
            if (used := budget.share(measured_figures(candidate, timing))) > 1:
                limits[kind] = share * max(_CLOSER / used, _LEAST_STEP)
                continue
        found[kind] = candidate.spec
    return list(found.values()), tuple(rows)


def _by_family(
    table: Sequence[Candidate], found: Mapping[tuple[str, int], ArchSpec]
) -> Iterator[tuple[tuple[str, int], Candidate]]:
    """Yield the candidates of kinds that are not found yet, with their kind: first those of families not found either.

    The table may begin with many networks of one family.
    """
    for first in (True, False):
        for candidate in table:
            kind = (candidate.family, candidate.spec.total_stride)
            if kind not in found and not (first and any(family == candidate.family for family, _ in found)):
                yield kind, candidate


def _row(spec: ArchSpec, timing: Timing) -> dict[str, Any]:
    """Return a network with its measured figures as a row of the plan."""
    figures = {"latency_ms": timing.latency_ms, "memory_mb": timing.memory_mb, "size_mb": timing.size_mb}
    return {"spec": spec_to_dict(spec), **figures}
