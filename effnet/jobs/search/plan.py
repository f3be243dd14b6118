"""The plan of a search: its extent, from the time and the speed of this machine, and the latencies that it predicts by.

One worker makes it; the others take it over, so that all of them propose and train the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import BundleError, DataError, InputError
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.reading import Source
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.run import attempt_at
from effnet.jobs.fit.time_left import FILLED, measured_epoch
from effnet.jobs.search.checks import config_of
from effnet.jobs.search.measured import drawn, measure_networks, references_of, space_of
from effnet.measurement.profile.table import fit_latency
from effnet.measurement.speed.timing import Timing
from effnet.nas.policy import Policy
from effnet.nas.spaces.macro import MacroSpace
from effnet.nas.spaces.width import Predictor
from effnet.nas.trials import ROUNDS
from effnet.planner.oracle import training_speed
from effnet.planner.settings import most_epochs
from effnet.planner.space import Candidate, in_precision, only_candidate

DEFAULT_MINUTES = 60.0
# Trainings of networks that train this many times as slow or as fast as others still see enough images to be compared.
_MOST_SLOWNESS = 3.0
# The networks of the smallest final: the best scaled one and a searched one.
_LEAST_NETWORKS = 2
# The number of the drawing of networks whose training is timed.
_TIMED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The extent of a search.

    `trainings` networks are trained, in generations of `size`, for a few epochs on `images` images. That is for a
    network that trains as fast as the median of `timed`, networks with their training milliseconds an image, if there
    are any; others get as many as take the same time. The final has `finalists` beside the best scaled network, each
    trained for `most_epochs` at most. `deciding` and `proving` are the shares of the minutes for the final and for the
    proof of the bundle. `threads` are those of training, `precision` that of the deployed file. `measured` are networks
    with their latency in ms and memory in MB, which predictions are fitted to. `references` are the networks that `fit`
    would choose from, as the best scaled ones.
    """

    trainings: int
    size: int
    images: int
    finalists: int
    most_epochs: int
    threads: int
    precision: Precision
    deciding: float
    proving: float
    references: tuple[Mapping[str, Any], ...] = ()
    measured: tuple[Mapping[str, Any], ...] = ()
    timed: tuple[Mapping[str, Any], ...] = ()


def make_plan(job: Job, source: Source, measure: Callable[[Candidate], Timing]) -> Plan:
    """Return the plan; `measure` measures networks. Raises InputError if minutes are too few for a search."""
    import torch

    config, policy = config_of(job), job.procedure.search
    minutes = config.minutes or 0.0
    precision = job.target.precisions(job.budget)[0]
    measured = measure_networks(job, source, precision, measure)
    references, more = references_of(job, source, precision, measured, measure)
    measured += more
    space = space_of(job, source, precision, measured)
    timed = _timed(space, references, policy.timed, seed=job.seed)
    train = len(source.dataset.train)
    most = int(min(most_epochs(train), config.epochs or math.inf, policy.final_epochs or math.inf))
    usual = spec_from_dict(sorted(timed, key=lambda row: row["ms"])[len(timed) // 2]["spec"])
    # Epochs of a usual network that there is time for in all the minutes.
    attempt = attempt_of(job, source, precision, usual, most)
    epochs = FILLED * 60 * minutes / measured_epoch(usual, attempt, source.dataset)
    searching, deciding = _shares(policy, (policy.finalists + 1) * policy.seeds * most / max(epochs, 1.0))
    views = searching * epochs * train / ROUNDS
    number, images = _extent(views, train, policy, trainings=config.trainings, images=config.images, minutes=minutes)
    check = not (config.trainings and config.images)
    networks = _finalists(policy, deciding * epochs, most=most, minutes=minutes) if check else policy.finalists + 1
    if not check:  # what is requested is trained, even if little time is left for the final
        deciding /= 2
    return Plan(
        trainings=number,
        size=policy.size,
        images=images,
        finalists=networks - 1,
        most_epochs=most,
        threads=torch.get_num_threads(),
        precision=precision,
        deciding=deciding,
        proving=policy.proving,
        references=tuple(map(spec_to_dict, references)),
        measured=measured,
        timed=() if config.images else timed,  # as many as requested, whatever the network
    )


def attempt_of(job: Job, source: Source, precision: Precision, spec: ArchSpec, epochs: int) -> Attempt:
    """Return the attempt by which fit trains a network for a number of epochs."""
    candidate = in_precision(only_candidate(spec), precision)
    return attempt_at(job, source.dataset, source.report, 0, candidate, epochs=epochs)


def _finalists(policy: Policy, epochs: float, *, most: int, minutes: float) -> int:
    """Return how many networks a final has that has time for these epochs: each needs a share of the `most`.

    Raises InputError if there is no time for two.
    """
    least = max(1.0, policy.least_worth * most)
    networks = min(policy.finalists + 1, int(epochs / least))
    if networks >= _LEAST_NETWORKS:
        return networks
    needed = math.ceil(minutes * _LEAST_NETWORKS * least / max(epochs, 1e-9))
    raise InputError(
        f"a search needs time to train the best scaled network and a searched one for {math.ceil(least)} epochs each, "
        f"about {needed} minutes here; got {minutes:g}: the networks that learn fastest are not the best in the end. "
        "Give more --minutes, or use effnet fit, which searches nothing"
    )


def _shares(policy: Policy, needed: float) -> tuple[float, float]:
    """Return the shares of searching and of the final; what the final does not need, searching has."""
    deciding = min(policy.deciding, needed)
    return policy.searching + policy.deciding - deciding, deciding


def _timed(
    space: MacroSpace, references: Sequence[ArchSpec], count: int, *, seed: int
) -> tuple[Mapping[str, Any], ...]:
    """Return networks with their training milliseconds an image: references, and random ones of the space."""
    specs = dict.fromkeys([*references, *drawn(space, count, seed=seed, number=_TIMED)])
    if not specs:
        raise BundleError("the space has no network")
    return tuple({"spec": spec_to_dict(spec), "ms": 1000 / training_speed(spec)} for spec in specs)


def slowness_of(timed: Sequence[Mapping[str, Any]]) -> Predictor:
    """Return what predicts how long a network trains on an image, relative to the median of the `timed` ones."""
    if not timed:
        return lambda spec: 1.0
    known = {spec_from_dict(row["spec"]): row["ms"] for row in timed}
    predict, usual = fit_latency(list(known), list(known.values())).predict, median(known.values())

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
