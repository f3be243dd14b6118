"""The choice of the network: pretrained ones if any fits, else one that is trained from scratch."""

import dataclasses
import http.client
import json
import math
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from effnet.bundle.formats import Precision
from effnet.bundle.names import RUN
from effnet.data.annotated.objects import OBJECTS, to_annotated
from effnet.data.annotated.sizes import typical_share
from effnet.data.datasets import Dataset
from effnet.data.inspection.inspect import DataReport
from effnet.errors import BudgetError, BundleError, WeightsError
from effnet.jobs.fit.choice.dense_trials import dense_trial
from effnet.jobs.fit.choice.measuring import measuring
from effnet.jobs.fit.choice.short_training import short_training
from effnet.jobs.fit.dense import measured_need, typical_outside_ms
from effnet.jobs.fit.deploy.device import device_of
from effnet.jobs.fit.deploy.export import least_steps
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.resume import fingerprint
from effnet.measurement.budget import Budget
from effnet.measurement.speed.timing import Timing
from effnet.nas.trials import Score, Trials, run_trials
from effnet.planner.dense import input_sizes, list_dense, named_dense
from effnet.planner.events import Counted
from effnet.planner.oracle import training_speed
from effnet.planner.plan import make_plan
from effnet.planner.predict import MEASURED
from effnet.planner.pretrained import LEAST_SIDE, Change, Offer, changes_of, list_offers, list_pretrained, offer_of
from effnet.planner.search import TrainingNeed, TrainsTooSlowly
from effnet.planner.settings import (
    DEFAULT_MINUTES,
    can_recover,
    feature_need,
    measured_feature_need,
    training_need,
)
from effnet.planner.space import Candidate, in_precision, list_candidates, only_candidate
from effnet.planner.timetable import minutes_of, reserve
from effnet.report.search.searched import Searched
from effnet.system.cache import cache_folder, network_forbidden
from effnet.system.machine import usable_cores
from effnet.tasks.registry import find_task
from effnet.weights.pretrained import Pretrained, load_backbone

_RGB = 3
# A network is assembled from one of at most this many times the budget: beyond, scores of single blocks do not add up.
_MOST_CUT = 2.5
# The seconds in which a few detectors or segmenters are measured; their plan could take longer on a busy machine.
_DENSE_PLANNING = 60.0
# If this many published weights fail to load, the best first, only those on this machine are tried.
_MOST_FAILURES = 3
_HUB, _HUB_SECONDS = "https://huggingface.co", 3.0


def choose(job: Job, dataset: Dataset, report: DataReport) -> list[Candidate]:
    """Return the table of candidates, one of them taken.

    Raises BudgetError if none meets the budget, WeightsError if the requested weights are not available.
    """
    if job.assembles:
        limits = {name: _MOST_CUT * limit for name, limit in job.budget.asked().items()}
        within = Budget(**limits)  # type: ignore[arg-type]
        table = choose(dataclasses.replace(job, assembles=False, budget=within), dataset, report)
        return [_as_teacher(candidate) if candidate.status == "taken" else candidate for candidate in table]
    if job.config.weights == "none" or job.strategy == "scratch":
        return _choose_fresh(job, dataset, report)
    if job.config.weights != "auto":
        return _choose_named(job, dataset, report)
    try:
        return _choose_published(job, dataset, report)
    except (BudgetError, WeightsError) as error:
        if job.strategy != "auto":  # it needs pretrained weights
            raise
        job.say(f"Training from scratch: {error}")
    return _choose_fresh(job, dataset, report)


def _as_teacher(candidate: Candidate) -> Candidate:
    """Return the network that is fine-tuned and then changed; raise WeightsError if it is trained from scratch."""
    if not candidate.weights:
        raise WeightsError("assembling needs pretrained weights, and none are available")
    reason = "the most accurate from which a smaller network can be assembled"
    return dataclasses.replace(candidate, whole=candidate.spec, reason=reason)


def _choose_named(job: Job, dataset: Dataset, report: DataReport) -> list[Candidate]:
    found = _load(job, str(job.config.weights))
    if found.spec.in_channels not in (_RGB, dataset.channels):
        raise WeightsError(
            f"weights must read {_RGB} channels, or as many as the images have, {dataset.channels}; "
            f"{job.config.weights} reads {found.spec.in_channels}: give --set "
            f"fit.channels={found.spec.in_channels}, or other weights"
        )
    # A network already trained on these classes can be the teacher of its modified versions; a head alone is not
    # trained further.
    knows = found.knows(dataset.class_names, split_seed=job.seed, group_by=job.config.group_by) and len(dataset.val) > 0
    own, asked = (found.split_seed, found.group_by), (job.seed, job.config.group_by)
    if found.class_names == dataset.class_names and own != asked:
        job.say(
            f"Possible test-set leakage: {job.config.weights} was trained with split seed {found.split_seed}"
            f"{f' and fit.group_by={own[1]}' if own[1] else ''}, so it may know images that are held out now. Its "
            "classifier is discarded and pruning is disabled; give the same --seed and fit.group_by to keep them"
        )
    whole = find_task(dataset.task).whole is not None
    may_change = knows and not whole and job.strategy != "head" and bool(job.budget.asked())
    offer = offer_of(found, num_classes=len(dataset.class_names), channels=dataset.channels)
    changes = changes_of(offer.spec, can_train=_can_recover(job, dataset, offer)) if may_change else ()
    try:
        return _choose_pretrained(job, dataset, report, [offer], changes=changes)
    except BudgetError as error:
        raise BudgetError(f"{error}; or train a smaller network from scratch with --weights none") from error


def _can_recover(job: Job, dataset: Dataset, offer: Offer) -> bool:
    minutes = training_minutes(job, dataset)
    if minutes is None:
        return True
    speed = training_speed(offer.spec)
    return can_recover(len(dataset.train), minutes=minutes, images_per_second=speed)


def training_minutes(job: Job, dataset: Dataset, *, trial_minutes: float = 0.0, planning: float = 0.0) -> float | None:
    """Return the minutes left for training when a network is chosen; None if the number of epochs is fixed.

    `trial_minutes` are what trials will take, `planning` is the number of seconds that the choice will take.
    """
    if not job.deadline.limited:
        return job.time_limit
    left = job.deadline.left() - 60 * trial_minutes - planning
    return minutes_of(left - reserve(left, job.pace.finishing(dataset, 0.0)))


def _load(job: Job, weights: str) -> Pretrained:
    def tell(done: int, total: int) -> None:
        job.listener(Counted(label="bytes downloaded", done=done, total=total))

    try:
        found = load_backbone(weights, model=str(job.config.model) or None, progress=tell)
    except WeightsError as error:  # it advises the option of the verbs that read weights alone
        raise WeightsError(str(error).replace("--model ", "--set fit.model=")) from error
    for note in found.notes:
        job.say(f"{weights}: {note}")
    return found


def _choose_fresh(job: Job, dataset: Dataset, report: DataReport) -> list[Candidate]:
    num_classes, channels = len(dataset.class_names), dataset.channels
    if job.network is None and find_task(dataset.task).whole is not None:
        return _choose_dense(job, dataset, report, [])
    if job.network is not None:
        spec = dataclasses.replace(job.network, num_classes=num_classes, in_channels=channels)
        precision = job.target.precisions(job.budget)[0]
        if job.searched is not None:  # the search has measured it
            return [_found(in_precision(only_candidate(spec), precision), job.searched)]
        whole = find_task(dataset.task).whole is not None
        only = named_dense(spec, task=dataset.task) if whole else only_candidate(spec)
        return _plan(job, [in_precision(only, precision)], need=None)
    need = None
    minutes = training_minutes(job, dataset, trial_minutes=job.trial_minutes, planning=job.planning.left())
    if minutes is not None:
        import torch

        cores, gpu = usable_cores(), torch.cuda.is_available()
        need = training_need(len(dataset.train), minutes=minutes, cores=cores, gpu=gpu, fewer=job.deadline.limited)
    candidates = list_candidates(
        num_classes=num_classes,
        channels=channels,
        short_side=report.median_short_side,
        precisions=_precisions(job, dataset),
        space=job.procedure.space,
    )
    table = _plan(job, candidates, need=need)
    taken = next(c for c in table if c.status == "taken")
    if need is not None and need.halvings and (speed := training_speed(taken.spec)) < need.images_per_second:
        job.say(f"Little time for training: {need.reason} images/s, but {taken.title} trains {speed:.3g}")
        need = dataclasses.replace(need, images_per_second=speed)

    def too_slow(candidate: Candidate) -> bool:
        return need is not None and training_speed(candidate.spec) < need.images_per_second

    seconds = 60 * job.trial_minutes / max(1, job.num_trials)
    score = short_training(job, dataset, report, seconds=seconds)
    return _tried(job, dataset, table, score=score, too_slow=too_slow, why=need.reason if need else "")


def _found(candidate: Candidate, searched: Searched) -> Candidate:
    """Return the network that a search found, with its measurements there."""
    row = next(row for row in searched.finals if row.winner)
    figures = {name: row.figures[name] for name in MEASURED if name in row.figures}
    found = dataclasses.replace(candidate, **figures)  # type: ignore[arg-type]
    return dataclasses.replace(
        found, status="taken", reason=f"the best {'scaled' if row.scaled else 'searched'} network of the search"
    )


def _tried(
    job: Job,
    dataset: Dataset,
    table: list[Candidate],
    *,
    score: Score,
    too_slow: Callable[[Candidate], bool],
    why: str,
    outside_ms: float = 0.0,
) -> list[Candidate]:
    """Return the table with the best of a few trials taken, if there are any."""
    if not job.num_trials:
        return table
    job.say(f"Trying up to {job.num_trials} networks for {job.trial_minutes:.3g} minutes", heading=True)
    with measuring(job, outside_ms=outside_ms) as measure:

        def measure_trained(candidate: Candidate) -> Timing:
            if too_slow(candidate):
                raise BundleError(f"it trains too slowly: {why}")
            return measure(candidate)

        return run_trials(
            table,
            job.budget,
            Trials(number=job.num_trials, seconds=60 * job.trial_minutes, seed=job.seed),
            measure=measure_trained,
            score=score,
            folder=job.out / RUN,
            key=json.dumps([job.options, fingerprint(dataset)], default=str),
            listener=job.listener,
        )


def _choose_published(job: Job, dataset: Dataset, report: DataReport) -> list[Candidate]:
    """Return the table with the best available published weights."""
    side = report.median_short_side
    if side < LEAST_SIDE:
        raise WeightsError(
            f"images must have at least {LEAST_SIDE} pixels for weights that were trained on photographs; got {side}: "
            "name weights with --weights to use them all the same"
        )
    for cached_only in (False, True) if _hub_answers() else (True,):
        offers = list_offers(num_classes=len(dataset.class_names), channels=dataset.channels, cached_only=cached_only)
        for _ in range(_MOST_FAILURES):
            if not offers:
                break
            table = _choose_pretrained(job, dataset, report, offers)
            taken = next(c.weights for c in table if c.status == "taken")
            try:
                _load(job, taken)
            except WeightsError as error:
                job.say(str(error))
                offers = [offer for offer in offers if offer.source != taken]
                continue
            return table
    raise WeightsError(
        f"no pretrained weights are available, neither in {cache_folder()} or the hub's cache nor from the hub; name "
        "weights on this machine with --weights FILE"
    )


def _hub_answers() -> bool:
    """Return whether the hub can be reached, without waiting for long."""
    if network_forbidden():
        return False
    try:
        request = urllib.request.Request(os.environ.get("HF_ENDPOINT") or _HUB, method="HEAD")
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _choose_pretrained(
    job: Job, dataset: Dataset, report: DataReport, offers: Sequence[Offer], *, changes: Sequence[Change] = ()
) -> list[Candidate]:
    if find_task(dataset.task).whole is not None:
        return _choose_dense(job, dataset, report, offers)
    need = None
    if len(offers) > 1:
        need = _feature_need(job, dataset)
    candidates = list_pretrained(offers, precisions=_precisions(job, dataset), changes=changes)
    try:
        return _plan(job, candidates, need=need, best="most accurate")
    except TrainsTooSlowly:
        if not job.deadline.limited or need is None:
            raise
        # Even the smallest pretrained network promises more than a fresh one in as little time.
        least = max(2 * need.most_macs, min(c.cost.macs for c in candidates))
        need = dataclasses.replace(need, most_macs=least)
        return _plan(job, candidates, need=need, best="most accurate")


def _choose_dense(job: Job, dataset: Dataset, report: DataReport, offers: Sequence[Offer]) -> list[Candidate]:
    """Return the table of detectors or segmenters on the backbones of `offers`, none for training from scratch."""
    longest = max(report.widths.median, report.heights.median)
    boxes = dataset.label_kind is OBJECTS
    candidates = list_dense(
        offers,
        task=dataset.task,
        num_classes=len(dataset.class_names),
        channels=dataset.channels,
        sizes=input_sizes(report.shapes, longest=longest),
        precisions=tuple(p for p in _precisions(job, dataset) if p in ("fp32", "fp16", "int8")),
        object_share=typical_share(list(map(to_annotated, dataset.train.labels))) if boxes else None,
    )
    outside = 0.0  # what follows the network is part of its latency
    if job.budget.latency_ms is not None:
        outside = typical_outside_ms(dataset)
    need = None
    planning = min(job.planning.left(), _DENSE_PLANNING)
    minutes = training_minutes(job, dataset, trial_minutes=job.trial_minutes, planning=planning)
    if minutes is not None:
        need = measured_need(job, dataset, candidates, minutes=minutes)
    table = _plan(job, candidates, need=need, best="most promising", outside_ms=outside)
    return _tried(
        job,
        dataset,
        table,
        score=dense_trial(job, dataset, seconds=60 * job.trial_minutes / max(1, job.num_trials)),
        too_slow=lambda candidate: need is not None and candidate.cost.macs > need.most_macs,
        why=need.reason if need else "",
        outside_ms=outside,
    )


def _feature_need(job: Job, dataset: Dataset) -> TrainingNeed:
    """Return how large a backbone may be; with a deadline, views and what follows have their time elsewhere."""
    if job.deadline.limited:
        seconds = 60 * (training_minutes(job, dataset) or DEFAULT_MINUTES)
        steps = least_steps(job.target) if job.target.precision == "int8" else 0
        return measured_feature_need(dataset, job.pace, seconds=seconds, int8_steps=steps)
    images = 2 * len(dataset.train) + len(dataset.val) + 2 * len(dataset.test)
    return feature_need(images, minutes=job.time_limit or DEFAULT_MINUTES, cores=usable_cores())


def _plan(
    job: Job,
    candidates: Sequence[Candidate],
    *,
    need: TrainingNeed | None,
    best: str = "largest",
    outside_ms: float = 0.0,
) -> list[Candidate]:
    with measuring(job, outside_ms=outside_ms) as measure:
        return make_plan(
            candidates,
            job.budget,
            measure=measure,
            # Pretrained networks need no timing: their cost is known from their MACs.
            train_speed=training_speed if best == "largest" else lambda spec: math.inf,
            need=need,
            best=best,
            listener=job.listener,
            late=lambda: job.planning.left() <= 0,
        )


def _precisions(job: Job, dataset: Dataset) -> tuple[Precision, ...]:
    """Return the precisions to plan with: those of the profile, and fp32 alone without validation images."""
    found = job.target.precisions(job.budget)
    if job.target.precision != "auto":
        return found
    device = device_of(job)
    if device is not None:
        found = tuple(p for p in found if p in device.profile.precisions or p in ("w8", "fp16"))
    return found if len(dataset.val) else tuple(p for p in found if p == "fp32")
