"""Check the options of a search before anything is read."""

import dataclasses
from typing import get_args

from effnet.arch.catalog import get_spec
from effnet.errors import InputError, nearest
from effnet.jobs.fit.checks import check
from effnet.jobs.fit.job import Job
from effnet.jobs.search.config import Algorithm, Objective, SearchConfig
from effnet.nas.spaces.stages import rows_of
from effnet.system.bounds import check_minutes, check_whole, is_number
from effnet.system.text import brief

_MOST_TRAININGS, _MOST_IMAGES, _LEAST_EXPONENT = 10_000, 10_000_000, -100.0
# With fewer images a training has fewer steps than epochs need.
_LEAST_IMAGES = 32


def config_of(job: Job) -> SearchConfig:
    """Return the search's own options."""
    assert isinstance(job.config, SearchConfig)
    return job.config


def check_search(job: Job) -> None:
    """Raise InputError, or SpecError for an unknown base, for options that cannot be carried out."""
    config = config_of(job)
    # The minutes are those of the search, the epochs those of the last training.
    check(dataclasses.replace(job, config=dataclasses.replace(config, minutes=None) if config.epochs else config))
    if config.minutes is not None:
        check_minutes(config.minutes)
    if not job.budget.asked():
        raise InputError("a search needs a device budget; got none. Give --max-latency-ms, or another limit")
    for what, value, known in (
        ("algorithm", config.algorithm, get_args(Algorithm)),
        ("objective", config.objective, get_args(Objective)),
    ):
        if value not in known:
            hint = nearest(str(value), known)
            raise InputError(f"--{what} must be one of {', '.join(known)}; got {value!r}{hint}")
    if config.strict_paper and config.objective == "accuracy":
        raise InputError(
            "fit.strict_paper leaves the budget to the objective, and accuracy knows none; add --objective product, or "
            "leave fit.strict_paper out"
        )
    for what, number, least, most in (
        ("trainings", config.trainings, 1, _MOST_TRAININGS),
        ("images", config.images, _LEAST_IMAGES, _MOST_IMAGES),
    ):
        if number is not None:
            check_whole(what, number, least=least, most=most)
    if config.exponent is not None and not (is_number(config.exponent) and _LEAST_EXPONENT <= config.exponent <= 0):
        raise InputError(f"fit.exponent must lie in {_LEAST_EXPONENT:g}..0; got {brief(config.exponent)}")
    if config.base != "auto":
        rows_of(get_spec(config.base))
    if config.algorithm in ("assemble", "supernet") and config.storage is not None:
        raise InputError(f"--algorithm {config.algorithm} runs on one machine; leave out --storage")
    if config.algorithm == "supernet" and not job.procedure.search.device:
        from effnet.nas.supernet import check_device  # torch

        check_device()
