"""The grid of compound scaling on a data set: networks of equal cost are trained, and suggest alpha, beta and gamma."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.arch.scale import with_total_stride
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.bundle.names import RUN, SEARCH
from effnet.errors import InputError
from effnet.jobs.fit.checks import check
from effnet.jobs.fit.choice.short_training import train_briefly
from effnet.jobs.fit.job import Job, job_of
from effnet.jobs.fit.reading import Source, read_data
from effnet.jobs.fit.resume import fingerprint
from effnet.jobs.fit.run import earlier_plan
from effnet.jobs.procedure import Procedure
from effnet.jobs.search.config import SearchConfig
from effnet.jobs.search.plan import check_images
from effnet.nas.algorithms.grid import GridAnswer, GridPoint, answer, equal_cost_grid, literal_grid
from effnet.nas.storage import Waiting
from effnet.nas.study import Study, Unit, forget_log, open_study, seed_of
from effnet.nas.trials import ROUNDS
from effnet.planner.events import Counted, Listener
from effnet.planner.oracle import training_speed
from effnet.planner.space import usable_strides
from effnet.progress import ignore
from effnet.system.lock import alone_in
from effnet.system.text import percent

_GRID = "grid.json"
# The share of the points, the best ones, that are trained with further seeds.
_AGAIN = 1 / 3
# A short training from scratch spends about this share of its time on steps.
_TRAINING_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class GridResult:
    """A trained grid: its base, its points, the accuracies of each by the point's index, and the answer."""

    base: ArchSpec
    points: Sequence[GridPoint]
    scores: Mapping[int, Sequence[float]]
    answer: GridAnswer

    @property
    def sentence(self) -> str:
        """The answer in words."""
        found = self.answer
        how = "the top of the fitted surface" if found.fitted else "the best network"
        text = f"alpha {found.alpha:.3g}, beta {found.beta:.3g}, gamma {found.gamma:.3g}: {how}"
        if found.gain is None:
            return f"{text}."
        noise = "" if found.noise is None else f" ± {100 * found.noise:.1f}"
        verdict = "better" if found.beats_published else "not better beyond noise"
        return (
            f"{text}. The best network is {verdict} than that of the published coefficients "
            f"({100 * found.gain:+.1f}{noise} percentage points)."
        )


def search_grid(
    base: ArchSpec,
    data: str,
    *,
    minutes: float,
    out: Path,
    resume: bool = False,
    literal: bool = False,
    seeds: int = 2,
    seed: int = 0,
    listener: Listener = ignore,
    procedure: Procedure | None = None,
) -> GridResult:
    """Train every network of the grid of `base` on `data` for a few epochs, the best third with `seeds` seeds.

    `literal` takes only coefficients that are multiples of 0.05. The base is adapted to the images: its resolution is
    at most theirs. `out` keeps the trainings, from which an interrupted grid resumes, and grid.json. Raises DataError
    or InputError if images or minutes are too few.
    """
    config = SearchConfig(
        data, minutes=minutes, out=out, resume=resume, base=base.name, seed=seed, listener=listener, procedure=procedure
    )
    job = job_of(config)
    check(job)
    with alone_in(job.out):
        earlier_plan(job)
        source = read_data(job)
        check_images(job, source)
        fitted = _fitted(base, source)
        points = literal_grid(fitted) if literal else equal_cost_grid(fitted)
        key = fingerprint(source.dataset)
        waiting = Waiting(say=job.say, clock=job.procedure.stopwatch.clock)
        options = {**job.options, "literal": literal, "seeds": seeds}
        log, begun = job.out / RUN / SEARCH, False
        try:
            with open_study(str(log), waiting=waiting, options=options, key=key) as study:
                images = _images(job, source, points, trainings=len(points) + _again(points) * (seeds - 1))
                begun = True
                scores = _train(job, source, study, points, images=images, seeds=seeds, key=f"{seed} {key}")
        finally:
            if not begun:
                forget_log(log, job.out)
        result = GridResult(base=fitted, points=points, scores=scores, answer=answer(fitted, points, scores=scores))
        write_text(job.out / _GRID, json.dumps(_rows(result), indent=1) + "\n")
    return result


def _fitted(base: ArchSpec, source: Source) -> ArchSpec:
    """Return the base for the images: their channels and classes, and at most their resolution."""
    dataset, side = source.dataset, source.report.median_short_side
    resolution = min(base.resolution, max(16, side))
    base = dataclasses.replace(
        base, num_classes=len(dataset.class_names), in_channels=dataset.channels, resolution=resolution
    )
    strides = usable_strides(resolution, whole=base.total_stride, short_side=side)
    return with_total_stride(base, max(strides)) if strides else base


def _train(
    job: Job, source: Source, study: Study, points: Sequence[GridPoint], *, images: int, seeds: int, key: str
) -> dict[int, list[float]]:
    """Train all points once, and the best third and the published one with further seeds."""
    again = _again(points)
    order = list(range(len(points)))
    scores: dict[int, list[float]] = {index: [] for index in order}
    done = 0
    for number in range(seeds):
        units = {Unit(number, index): index for index in order}

        def do(unit: Unit, units: Mapping[Unit, int] = units) -> dict[str, Any]:
            nonlocal done
            spec = points[units[unit]].spec
            found = train_briefly(spec, job, source.dataset, source.report, images=images, seed=seed_of(key, *unit))
            done += 1
            job.listener(Counted(label="networks trained", done=done, total=len(points) + again * (seeds - 1)))
            return {"value": found.best}

        for unit, row in study.in_turn(list(units), do, score="value").items():
            scores[units[unit]].append(row["value"])
        ranked = sorted(order, key=lambda index: -scores[index][0])
        order = list(dict.fromkeys([*(i for i in order if points[i].published), *ranked]))[:again] if again else []
    return {index: values for index, values in scores.items() if values}


def _again(points: Sequence[GridPoint]) -> int:
    """Return the number of points that are trained with further seeds."""
    return max(1, round(_AGAIN * len(points)))


def _images(job: Job, source: Source, points: Sequence[GridPoint], *, trainings: int) -> int:
    """Return the number of images of a training; raise InputError if there is time for too few."""
    policy, train = job.procedure.search, len(source.dataset.train)
    minutes = job.config.minutes or 0.0
    views = 60 * minutes * _TRAINING_SHARE * training_speed(points[0].spec) / (ROUNDS * trainings)
    if views < (least := min(train, policy.least_images)):
        raise InputError(
            f"a grid of {len(points)} networks needs time for {trainings} trainings of {ROUNDS} epochs on {least} "
            f"images, about {math.ceil(minutes * least / max(views, 1e-9))} minutes here; got {minutes:g}. Give more "
            "--minutes, or a smaller network"
        )
    return int(min(train, policy.most_images, views))


def _rows(result: GridResult) -> dict[str, Any]:
    """Return the content of grid.json."""
    rows = [
        {
            "alpha": point.alpha,
            "beta": point.beta,
            "gamma": point.gamma,
            "product": point.product,
            "macs_ratio": point.ratio,
            "published": point.published,
            "values": list(result.scores.get(index, ())),
        }
        for index, point in enumerate(result.points)
    ]
    found = result.answer
    return {
        "base": result.base.name,
        "points": rows,
        "alpha": found.alpha,
        "beta": found.beta,
        "gamma": found.gamma,
        "fitted": found.fitted,
        "gain": found.gain,
        "noise": found.noise,
        "sentence": result.sentence,
    }


def in_words(values: Sequence[float]) -> str:
    """Return the mean of a network's accuracies, and each of them if there are several."""
    if not values:
        return ""
    mean = percent(sum(values) / len(values), 1)
    return mean if len(values) == 1 else f"{mean} ({', '.join(percent(value, 1) for value in values)})"
