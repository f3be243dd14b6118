"""Modifications of a trained network: pruned channels, another activation."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from effnet.bundle.names import RUN
from effnet.compression.prune import COUNTS, vector_width
from effnet.data.datasets import Dataset
from effnet.jobs.fit.assemble import assembled
from effnet.jobs.fit.deploy.export import least_steps
from effnet.jobs.fit.job import Job
from effnet.jobs.prune.api import OPTIONS, prune
from effnet.jobs.prune.proof import REPORT
from effnet.jobs.prune.steps import DEFAULT_EPOCHS
from effnet.planner.pretrained import LIGHT_CHANGES, scope_of
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.space import Candidate
from effnet.planner.timetable import PRUNING_SHARE, Use, minutes_of, use_of
from effnet.system.files import read_json

# The bundle of the changed network, beside that of the whole one, and its copy that deployment writes to.
_CHANGED, _DEPLOYED = "changed", "deployed"
# Number of pruning steps; a single one is enough down to this share.
_PRUNING_STEPS, _LITTLE = 2, 0.85
# The changes that need no training, as a rule.
_LIGHT = [(found.count, found.kept) for found in LIGHT_CHANGES]


def change(bundle: Path, candidate: Candidate, dataset: Dataset, *, job: Job) -> tuple[Path, dict[str, Any]]:
    """Modify the trained network in `bundle` as the candidate says; return the new bundle and the modifications.

    These are the share "kept" of "kept_of", the new "activation", empty if it stays, and the "recovery_seconds" of
    fine-tuning. If the candidate is the trained network itself, return `bundle` and no modifications. A resumed fit
    finds finished work again: the returned bundle is a copy, and may be changed.
    """
    if candidate.whole is None:
        return bundle, {}
    if job.assembles:
        out, copy = bundle.with_name(_CHANGED), bundle.with_name(_DEPLOYED)
        seconds = 60 * (_minutes(out, candidate, dataset, job) or DEFAULT_MINUTES)
        return assembled(bundle, candidate, dataset, job=job, out=out, copy=copy, seconds=seconds)
    activation = _activation(candidate)
    words = [f"{activation} as the activation"] if activation else []
    words += [f"pruning to {candidate.kept:.0%} of the {COUNTS[candidate.kept_of]}"] if candidate.kept < 1 else []
    job.say(f"Smaller and faster: {', '.join(words)}", heading=True)
    out, copy = bundle.with_name(_CHANGED), bundle.with_name(_DEPLOYED)
    done = prune(
        bundle,
        job.source,
        out=out,
        resume=out.is_dir(),
        listener=job.listener,
        procedure=job.procedure,
        macs=candidate.kept if candidate.kept_of == "macs" else None,
        params=candidate.kept if candidate.kept_of == "params" else None,
        activation=activation,
        steps=1 if candidate.kept >= _LITTLE else _PRUNING_STEPS,
        scope=scope_of(candidate.kept_of),
        round_to=vector_width(),
        epochs=None if job.config.epochs is None else min(job.config.epochs, DEFAULT_EPOCHS),
        minutes=_minutes(out, candidate, dataset, job),
        threads=job.config.threads,
        seed=job.seed,
    )
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(out, copy)
    return copy, {
        "kept": candidate.kept,
        "kept_of": candidate.kept_of,
        "activation": activation,
        "recovery_seconds": done.report["training_seconds"],
    }


def forget_change(folder: Path) -> None:
    """Remove the modified network from the attempt's `folder`, since the network is trained further."""
    shutil.rmtree(folder / _CHANGED, ignore_errors=True)


def _minutes(out: Path, candidate: Candidate, dataset: Dataset, job: Job) -> float | None:
    """Return the minutes of pruning and fine-tuning; a resumed run in `out` keeps those that it began with."""
    if job.time_limit is None:
        return None
    if not job.deadline.limited:
        return PRUNING_SHARE * job.time_limit
    with suppress(OSError, ValueError, KeyError, TypeError):
        return read_json(out / RUN / OPTIONS)["minutes"]
    with suppress(OSError, ValueError, KeyError, TypeError):  # it is finished
        return read_json(out / REPORT)["options"]["minutes"]
    # It proves its result as any job does.
    use, macs = use_for(candidate, dataset, job), candidate.cost.macs
    return minutes_of(use.learning + use.unlabelled + use.change - job.pace.finishing(dataset, macs))


def use_for(candidate: Candidate, dataset: Dataset, job: Job) -> Use:
    """Return how the remaining time is used for a candidate."""
    return use_of(
        job.deadline.left(),
        job.pace,
        dataset,
        candidate.cost.macs,
        int8_steps=least_steps(job.target) if candidate.precision == "int8" else 0,
        changed=not _is_light(candidate),
        students=job.students_share,
    )


def learning_minutes(candidate: Candidate, job: Job) -> float | None:
    """Return the minutes for training before a network is changed; fine-tuning after the change needs its share."""
    return None if job.time_limit is None else job.time_limit * (1 if _is_light(candidate) else 1 - PRUNING_SHARE)


def _is_light(candidate: Candidate) -> bool:
    return candidate.whole is None or ((candidate.kept_of, candidate.kept) in _LIGHT and not _activation(candidate))


def _activation(candidate: Candidate) -> str:
    """Return the activation that replaces the trained network's own; empty if that stays."""
    whole = candidate.whole
    return "" if whole is None or candidate.spec.activation == whole.activation else candidate.spec.activation
