"""Check the options of a fit: their bounds, and whether they contradict each other."""

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np

from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.leaks import names_of
from effnet.data.inspection.shapes import Resize
from effnet.data.sources.names import refuse_inside
from effnet.errors import InputError, nearest
from effnet.jobs.fit.config import TASKS, Strategy
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.unlabelled.reading import check_unlabelled
from effnet.measurement.classification.unknown import unknown_images
from effnet.system.bounds import (
    MAX_CHANNELS,
    MAX_EPOCHS,
    MAX_SEED,
    MAX_SIDE,
    MAX_THREADS,
    check_minutes,
    check_whole,
)
from effnet.system.options import exact
from effnet.tasks.costs import check_cost
from effnet.weights.pretrained import find_source

# The recipe fields that affect a head, which is fitted without epochs.
_OF_A_HEAD = {"augment.flip", "balance.method", "balance.strength"}


def check(job: Job) -> None:
    """Raise InputError for options that contradict each other or are out of range."""
    if job.config.epochs is not None and job.config.minutes is not None:
        raise InputError("give --epochs or --minutes, not both")
    _check_one_length(job)
    _check_numbers(job)
    _check_strategy(job)
    check_unlabelled(job)
    if job.config.resize not in get_args(Resize):
        hint = nearest(str(job.config.resize), get_args(Resize))
        raise InputError(f"fit.resize must be one of {', '.join(get_args(Resize))}; got {job.config.resize!r}{hint}")
    if (task := getattr(job.config, "task", "auto")) not in TASKS:
        hint = nearest(str(task), TASKS)
        raise InputError(f"task must be one of {', '.join(TASKS)}; got {task!r}{hint}")
    check_cost(job.config.cost)
    if job.abstain.unknown_from is not None:
        unknown_images(job.abstain.unknown_from)
    if isinstance(job.dataset, Dataset):
        _check_split(job, job.dataset)
    elif job.dataset is None:
        refuse_inside(job.out, str(job.config.data))
    _check_writable(job.out)


def check_search_option(value: object) -> None:
    """Raise InputError unless fit.search is one of its values."""
    if value not in ("off", "auto"):
        raise InputError(f"fit.search must be off or auto; got {value!r}{nearest(str(value), ('off', 'auto'))}")


def _check_split(job: Job, dataset: Dataset) -> None:
    """Raise InputError if the fit would split a data set otherwise than it is, and test on images of its train."""
    if dataset.made and dataset.seed != job.seed:
        raise InputError(
            f"seed must be that of the data set's own split, {dataset.seed}; got {job.seed}: give it to the data set"
        )
    again = read_dataset(dataset, seed=dataset.seed, channels=dataset.channels)
    for name in ("train", "val", "test"):
        first, second = getattr(again, name), getattr(dataset, name)
        with_unknown = first.labels.dtype.kind == "f"  # NaN
        same = np.array_equal(first.labels, second.labels, equal_nan=with_unknown)
        if list(names_of(first)) != list(names_of(second)) or not same:
            raise InputError(
                f"the data set must be as read_dataset, from_arrays or from_torch returned it; its {name} split was "
                "changed: give the splits to from_arrays"
            )


def _check_one_length(job: Job) -> None:
    """Raise InputError if options and settings give different training lengths; in `train`, flags override a recipe."""
    asked, minutes, epochs = job.asked.settings.get("train.epochs"), job.config.minutes, job.config.epochs
    if job.network is not None or asked is None:
        return
    if minutes is not None:
        raise InputError(f"give --minutes or --set train.epochs, not both; got {exact(minutes)} and {asked}")
    if epochs not in (None, asked):
        raise InputError(
            f"--epochs and --set train.epochs must not differ; got {exact(epochs)} and {asked}: leave one out"
        )


def _check_numbers(job: Job) -> None:
    """Raise InputError for a number out of range; budget and recipe check their own."""
    if job.config.minutes is not None:
        check_minutes(job.config.minutes)
    sides = {} if job.network is None else {"the resolution": (job.network.resolution, 1, MAX_SIDE)}
    bounds = {
        "epochs": (job.config.epochs, 1, MAX_EPOCHS),
        "trials": (job.config.trials, 0, 10_000),
        "threads": (job.config.threads, 1, MAX_THREADS),
        "the seed": (job.seed, 0, MAX_SEED),
        "channels": (job.config.channels, 1, MAX_CHANNELS),
    }
    for what, (value, least, most) in (bounds | sides).items():
        if value is not None:
            check_whole(what, value, least=least, most=most)


def _check_strategy(job: Job) -> None:
    """Raise InputError if weights, strategy and model contradict each other."""
    known = get_args(Strategy)
    if job.strategy not in known:
        hint = nearest(job.strategy, known)
        raise InputError(f"the strategy must be one of {', '.join(known)}; got {job.strategy!r}{hint}")
    if job.strategy == "head" and job.config.epochs is not None:
        raise InputError(
            "--epochs has no effect with fit.strategy=head (logistic regression on frozen features); leave --epochs "
            "out, or give --set fit.strategy=finetune"
        )
    if job.strategy == "head" and (other := sorted({*job.asked.settings} - _OF_A_HEAD)):
        raise InputError(
            f"--set {other[0]} has no effect with fit.strategy=head, which uses only augment.flip and balance of the "
            "recipe; leave it out, or give --set fit.strategy=finetune"
        )
    if job.config.weights == "none" and job.strategy in ("head", "finetune"):
        raise InputError(
            f"the strategy {job.strategy} needs pretrained weights, but --weights is none; name some, or leave "
            "fit.strategy out"
        )
    if job.config.weights in ("none", "auto"):
        _refuse_model(job)
    elif job.strategy == "scratch":
        raise InputError(
            f"training from scratch uses no weights, but --weights is {job.config.weights}; give one of the two"
        )


def _refuse_model(job: Job) -> None:
    if job.network is None and job.config.model:
        raise InputError(
            f"fit.model names the network of a --weights FILE, but --weights is {job.config.weights}; leave it out, or "
            f"train this one network with: effnet train DATA --model {job.config.model}"
        )


def check_weights(job: Job) -> None:
    """Raise InputError if the weights of a new fit do not exist; nothing is downloaded."""
    if job.config.weights not in ("none", "auto") and not isinstance(find_source(str(job.config.weights)), Path):
        _refuse_model(job)


def _check_writable(out: Path) -> None:
    """Raise InputError if `out` cannot be written to; after planning and training it would be too late."""
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written to; {out} cannot: {error.strerror}") from error
