"""The plan of a search: its extent, from the time and the speed of this machine, and the latencies that it predicts by.

One worker makes it; the others take it over, so that all of them propose and train the same.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import BudgetError, BundleError, DataError, InputError
from effnet.jobs.fit.device import device_of, predicted_figures
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.measuring import measuring
from effnet.jobs.fit.reading import Source
from effnet.jobs.search.checks import config_of
from effnet.measurement.budget import Budget, say
from effnet.measurement.profile.regression import median_error
from effnet.measurement.profile.table import fit_latency, fit_memory
from effnet.nas.genomes import generator, sample
from effnet.nas.macro import MacroSpace, macro_space
from effnet.nas.policy import Policy
from effnet.nas.trials import ROUNDS
from effnet.nas.width import Predictor
from effnet.planner.events import Counted
from effnet.planner.oracle import training_speed
from effnet.planner.refusal import enough
from effnet.planner.settings import most_epochs
from effnet.planner.space import in_precision, list_candidates, only_candidate, weights_mb

DEFAULT_MINUTES = 60.0
# A training from scratch spends about this share of its time on steps.
TRAINING_SHARE = 0.7
# Trainings of networks that train this many times as slow or as fast as others still see enough images to be compared.
_MOST_SLOWNESS = 3.0
# The number of the drawing of networks whose training is timed.
_TIMED = 100
# Predictions of networks that miss by less in the median need no more measurements.
_GOOD_ERROR = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The extent of a search.

    `trainings` networks are trained, in generations of `size`, for a few epochs on `images` images; the finalists for
    `final_epochs` on `final_images`. That is for a network that trains as fast as the median of `timed`, networks with
    their training milliseconds an image, if there are any; others get as many as take the same time. `deciding` and
    `fitting` are the shares of the minutes for the final and for the last training. `threads` are those of training,
    `precision` that of the deployed file. `measured` are networks with their latency in ms and memory in MB, which
    predictions are fitted to.
    `references` are the networks that `fit` would choose from, as the best scaled ones.
    """

    trainings: int
    size: int
    images: int
    final_images: int
    final_epochs: int
    threads: int
    precision: Precision
    deciding: float
    fitting: float
    references: tuple[Mapping[str, Any], ...] = ()
    measured: tuple[Mapping[str, Any], ...] = ()
    timed: tuple[Mapping[str, Any], ...] = ()


def make_plan(job: Job, source: Source) -> Plan:
    """Return the plan; raise InputError if images or minutes are too few for a search."""
    import torch

    config, policy = config_of(job), job.procedure.search
    minutes = config.minutes or 0.0
    precision = job.target.precisions(job.budget)[0]
    measured = _measure(job, source, precision)
    space = space_of(job, source, precision, measured)
    references = _references(space, source, precision, policy.references)
    timed = _timed(space, references, policy.timed, seed=job.seed)
    train = len(source.dataset.train)
    # Images that training could see in all the time.
    seen = 60 * minutes * TRAINING_SHARE * 1000 / median(row["ms"] for row in timed)
    searching, deciding, fitting = _shares(policy, most_epochs(train) * train / max(seen, 1.0))
    views = searching * seen / ROUNDS
    number, images = _extent(views, train, policy, trainings=config.trainings, images=config.images, minutes=minutes)
    views = deciding * seen / ((policy.finalists + 1) * policy.seeds)
    if not (config.trainings and config.images) and views < policy.least_views:
        raise InputError(
            f"a search needs time to train each network of its final on at least {policy.least_views:,} images, about "
            f"{math.ceil(minutes * policy.least_views / max(views, 1.0))} minutes here; got {minutes:g}: what is best "
            "after fewer is not so in the end. Give more --minutes, or use effnet fit, which searches nothing"
        )
    final_images = min(train, max(images, int(views / ROUNDS)))
    final_epochs = max(ROUNDS, min(most_epochs(final_images), int(views / final_images)))
    return Plan(
        trainings=number,
        size=policy.size,
        images=images,
        final_images=final_images,
        final_epochs=min(final_epochs, policy.final_epochs or final_epochs),
        threads=torch.get_num_threads(),
        precision=precision,
        deciding=deciding,
        fitting=fitting,
        references=tuple(map(spec_to_dict, references)),
        measured=measured,
        timed=() if config.images else timed,  # as many as requested, whatever the network
    )


def _shares(policy: Policy, needed: float) -> tuple[float, float, float]:
    """Return the shares of searching, of the final and of the last training, which needs a share for all its epochs."""
    fitting = min(policy.fitting, needed)
    grown = 1 + (policy.fitting - fitting) / (policy.searching + policy.deciding)
    return grown * policy.searching, grown * policy.deciding, fitting


def _timed(
    space: MacroSpace, references: Sequence[ArchSpec], count: int, *, seed: int
) -> tuple[Mapping[str, Any], ...]:
    """Return networks with their training milliseconds an image: references, and random ones of the space."""
    specs = dict.fromkeys([*references, *_drawn(space, count, seed=seed, number=_TIMED)])
    if not specs:
        raise BundleError("the space has no network")
    return tuple({"spec": spec_to_dict(spec), "ms": 1000 / training_speed(spec)} for spec in specs)


def slowness_of(timed: Sequence[Mapping[str, Any]]) -> Predictor:
    """Return what predicts how long a network trains on an image, relative to the median of the `timed` ones."""
    if not timed:
        return lambda spec: 1.0
    times = [row["ms"] for row in timed]
    known = dict(zip((spec_from_dict(row["spec"]) for row in timed), times, strict=True))
    predict, usual = fit_latency(list(known), times).predict, median(times)

    def slowness(spec: ArchSpec) -> float:
        found = (known[spec] if spec in known else predict(spec)) / usual
        return min(_MOST_SLOWNESS, max(1 / _MOST_SLOWNESS, found))

    return slowness


def check_images(job: Job, source: Source) -> None:
    """Raise DataError if there are too few images to rank networks that are trained from scratch."""
    train, val, policy = len(source.dataset.train), len(source.dataset.val), job.procedure.search
    if train >= policy.least_train and val >= policy.least_val:
        return
    raise DataError(
        f"a search from scratch needs at least {policy.least_train:,} training and {policy.least_val} validation "
        f"images; got {train:,} and {val}. With so few, two trainings of one network differ by more than two networks, "
        "so the search would choose at random. Add images, or use effnet fit, which starts from pretrained weights"
    )


def _references(space: MacroSpace, source: Source, precision: Precision, most: int) -> list[ArchSpec]:
    """Return the networks that `fit` finds most promising within the budget, one of each family and total stride.

    They keep the comparison honest: a search must beat what effnet gives without one.
    """
    dataset = source.dataset
    table = list_candidates(
        num_classes=len(dataset.class_names),
        channels=dataset.channels,
        short_side=source.report.median_short_side,
        precisions=(precision,),
    )
    found: dict[tuple[str, int], ArchSpec] = {}
    for candidate in table:
        kind = (candidate.family, candidate.spec.total_stride)
        if kind not in found and space.share(candidate.spec) <= 1:
            found[kind] = candidate.spec
            if len(found) == most:
                break
    return list(found.values())


def _extent(
    views: float, train: int, policy: Policy, *, trainings: int | None, images: int | None, minutes: float
) -> tuple[int, int]:
    """Return the number of short trainings and the images of each, whose epochs together have at most `views` images.

    Requested numbers are not changed. Raises InputError if there is time for too few, or for too small ones.
    """
    least = min(train, policy.least_images)
    if trainings and images:
        return trainings, min(train, images)
    number = trainings or int(
        min(policy.most, views / images if images else max(4 * policy.size, views / min(train, policy.most_images)))
    )
    each = min(train, images or int(min(policy.most_images, views / max(1, number))))
    if not trainings and not images and each < least:
        number, each = int(views / least), least
    if number >= (trainings or policy.fewest) and each >= min(least, images or least):
        return number, each
    needed = minutes * (trainings or policy.fewest) * (images or least) / max(views, 1.0)
    raise InputError(
        f"a search needs time to train at least {trainings or policy.fewest} networks for {ROUNDS} epochs of "
        f"{images or least} images, about {math.ceil(needed)} minutes here; got {minutes:g}. Give more --minutes, or "
        "use effnet fit, which searches nothing"
    )


def space_of(job: Job, source: Source, precision: Precision, measured: Sequence[Mapping[str, Any]]) -> MacroSpace:
    """Return the space of networks around the budget, whose predictions are fitted to the measured ones."""
    predictors = _predictors(job, precision, measured)
    return _space(job, source, precision, job.budget.with_margin(), predictors, scaled=False)


def _space(
    job: Job,
    source: Source,
    precision: Precision,
    budget: Budget,
    predictors: Mapping[str, Predictor],
    *,
    scaled: bool = True,
) -> MacroSpace:
    """Return the space around a budget; `scaled` off leaves costs to an objective that weighs them."""
    dataset, config = source.dataset, config_of(job)
    return macro_space(
        _base(job, precision),
        num_classes=len(dataset.class_names),
        channels=dataset.channels,
        short_side=source.report.median_short_side,
        budget=budget,
        predictors=predictors,
        precision="int8" if precision == "int8" else "fp32",
        scaled=scaled or config.objective == "accuracy",
        limited=not config.strict_paper,
    )


def _base(job: Job, precision: Precision) -> ArchSpec:
    """Return the base; for int8 with activations that runtimes compute fast."""
    base = get_spec(config_of(job).base)
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


def _measure(job: Job, source: Source, precision: Precision) -> tuple[Mapping[str, Any], ...]:
    """Return networks with their measured latency and memory: scaled ones around the budget, then random ones."""
    asked = [key for key in ("latency_ms", "memory_mb", "size_mb") if key in job.budget.asked()]
    if not asked or device_of(job) is not None:
        return ()
    job.say(f"Measuring networks in {job.target.runtime}, to predict others", heading=True)
    rows, policy = list[Mapping[str, Any]](), job.procedure.search
    total = len(policy.phis) + sum(policy.measured)
    with measuring(job) as measure:

        def add(spec: ArchSpec) -> Mapping[str, float]:
            timing = measure(in_precision(only_candidate(spec), precision))
            found = {"latency_ms": timing.latency_ms, "memory_mb": timing.memory_mb, "size_mb": timing.size_mb}
            rows.append({"spec": spec_to_dict(spec), **found})
            job.listener(Counted(label="networks measured", done=len(rows), total=total))
            return found

        macs = _measure_scaled(job, source, precision, add)
        # Networks of equal MACs are the first that tell what else costs time.
        try:
            equal = _space(job, source, precision, Budget(macs=macs), {})
        except BudgetError as refused:
            raise BudgetError(_too_tight(job, rows)) from refused
        for spec in _drawn(equal, policy.measured[0], seed=job.seed, number=0):
            add(spec)
        for number, count in enumerate(policy.measured[1:], 1):
            space = space_of(job, source, precision, rows)
            specs = _drawn(space, count, seed=job.seed, number=number)
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


def _drawn(space: MacroSpace, count: int, *, seed: int, number: int) -> list[ArchSpec]:
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
