"""The stages whose pooled outputs a head may read beside the last feature map."""

import dataclasses

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.transfer.later_stages import STRIDE
from effnet.measurement.budget import LABELS
from effnet.planner.dense_recipe import early_stages
from effnet.planner.space import Candidate

# What the means, their concatenation and the longer rows of the classifier add to the latency at most: of Lite0 at 96
# and 224 pixels 1 % in fp32, and 6 % in int8, whose means have scales of their own (measured once, no record).
_SLOWER = 0.06


def pooled_stages(spec: ArchSpec, candidate: Candidate, job: Job) -> tuple[int, ...]:
    """Return the stages that a head on pretrained weights of `spec` may read as well; none if it may read no others."""
    reads = job.config.head_features
    if reads == "last" or (reads == "auto" and job.strategy == "finetune"):
        return ()
    wide = with_pooled(spec)
    reason = _why_not(spec, wide, candidate, job)
    if reason and reads == "all":
        job.say(f"The head reads the last feature map alone: {reason}")
    return () if reason else wide.pooled


def _why_not(spec: ArchSpec, wide: ArchSpec, candidate: Candidate, job: Job) -> str:
    """Return why the head cannot read the pooled stages of `wide` as well; empty if it can."""
    if spec.pooled:
        return "its weights say which stages it reads"
    if not wide.pooled:
        return f"{spec.title} has no later stages"
    if job.assembles or candidate.whole is not None:
        return "the network is made smaller afterwards"
    total = cost(wide)
    more = total.params - cost(spec).params
    figures = candidate.figures | {
        "params": total.params,
        "macs": total.macs,
        "size_mb": candidate.size_mb + 4e-6 * more,
        "memory_mb": None if candidate.memory_mb is None else candidate.memory_mb + 8e-6 * more,
        "latency_ms": None if candidate.latency_ms is None else (1 + _SLOWER) * candidate.latency_ms,
    }
    over = job.budget.exceeded(figures)
    return f"with the other stages {' and '.join(LABELS[name] for name in over)} would miss the budget" if over else ""


def with_pooled(spec: ArchSpec) -> ArchSpec:
    """Return the network whose classifier reads the pooled outputs of all later stages as well.

    They are those that are trained on kept feature maps, which replace the stages before.
    """
    number = len(spec.stages) if spec.head_channels else len(spec.stages) - 1
    return dataclasses.replace(spec, pooled=tuple(range(early_stages(spec, most=STRIDE), number)))
