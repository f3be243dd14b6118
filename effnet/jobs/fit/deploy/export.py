"""Export of trained weights to the file for the device, in the runtime and the precision that the plan chose."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.cost import cost
from effnet.bundle.config import ModelConfig, write_config
from effnet.bundle.formats import Format, Precision
from effnet.compression.ladder import climb
from effnet.compression.step import Gate
from effnet.compression.subject import Subject
from effnet.compression.tools import copy_export, tools_of
from effnet.data.datasets import Dataset
from effnet.jobs.fit.job import Job
from effnet.measurement.acceptance import compared
from effnet.measurement.answers import right_answers
from effnet.measurement.budget import Budget
from effnet.measurement.evaluate import evaluate
from effnet.measurement.paired import refusal
from effnet.measurement.sample import calibration_images
from effnet.planner.settings import DEFAULT_MINUTES
from effnet.planner.target import Target
from effnet.planner.timetable import INT8_SHARE, NEARLY, minutes_of, not_enough
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import find_format
from effnet.runtimes.write import write_export
from effnet.system.processor import has_vnni

# The format that every bundle has before deployment.
_REFERENCE = "onnx"
# The folder beside the bundle in which the quantization steps are made.
_CLIMB = "ladder"
_NOT_REACHED = "The time was over before there was a file of int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The deployed model: config and weights, as in the file at `path`, and how it was made.

    `ladder` is the record of the quantization steps, None if there were none. `refused` says why the requested
    precision cannot be shipped; empty if it can. `left_out` lists the steps for which there was no time.
    """

    config: ModelConfig
    state: Mapping[str, np.ndarray]
    path: Path
    format: Format
    ladder: Mapping[str, Any] | None = None
    refused: str = ""
    left_out: str = ""


def deploy(
    bundle: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    *,
    precision: Precision,
    job: Job,
) -> Deployed:
    """Write the file for the device into the folder `bundle`, and update its config.

    The folder has config, weights and the fp32 ONNX file already.

    With int8 the quantization search tries its steps until the budget is met; otherwise the weights are exported in
    `precision`. A file that loses more than the target's `max_drop` on the validation images is refused.
    """
    subject = Subject(config=config, state=state)
    if config.task_record.whole is not None:
        return _in_images(bundle, subject, dataset, precision=precision, job=job)
    if precision != "int8":
        return _as_it_is(bundle, subject, dataset, precision=precision, job=job)
    folder = bundle.parent / _CLIMB
    if not folder.exists() and (late := _too_late(config, dataset, job)):
        job.say(late)
        found = _as_it_is(bundle, subject, dataset, precision="fp32", job=job)
        return dataclasses.replace(found, left_out=late, refused=late if job.target.precision == "int8" else "")
    return _climbed(bundle, subject, dataset, folder=folder, job=job)


def _in_images(bundle: Path, subject: Subject, dataset: Dataset, *, precision: Precision, job: Job) -> Deployed:
    """Write the file of a detector or a segmenter; a lower precision must keep its figure on the validation images."""
    target, config = job.target, subject.config
    found = target.format(precision)
    if found.name != _REFERENCE:
        images = None
        if precision == "int8":
            job.say(f"Quantizing to int8 for {target.runtime}", heading=True)
            images = calibration_images(dataset.train, config.preprocess, class_names=config.class_names, seed=job.seed)
        write_export(found.name, bundle, config, subject.state, images=images)
    lost = ""
    if precision != "fp32" and len(dataset.val):
        before, after = (
            evaluate(Predictor(bundle, threads=job.config.threads, format=name), dataset.val).figure
            for name in (_REFERENCE, found.name)
        )
        figure = config.task_record.figure
        job.say(f"{found.name} has {figure.in_words(after)} on the validation images, {figure.shown(before)} in fp32")
        if before - after > max(config.task_record.figure_drop, target.max_drop):
            lost = f"{found.name} loses {100 * (before - after):.2g} points of {figure.title}"
    if lost and target.precision == "auto":
        job.say(f"{lost}: the file is written in fp32")
        return _in_images(bundle, subject, dataset, precision="fp32", job=job)
    config = dataclasses.replace(config, deployed=found.name)
    write_config(config, bundle)
    return Deployed(config=config, state=subject.state, path=bundle / found.file, format=found, refused=lost)


def _too_late(config: ModelConfig, dataset: Dataset, job: Job) -> str:
    """Return a sentence if the remaining time is too short for the fastest int8 step; empty if it is not."""
    if not job.deadline.limited:
        return ""
    needs = job.pace.int8(dataset, cost(config.arch).macs, steps=least_steps(job.target))
    left = _left(config, dataset, job)
    return not_enough("int8 was not tried", needs=needs, left=left) if left < NEARLY * needs else ""


def least_steps(target: Target) -> int:
    """Return the number of steps of the shortest search for int8: fp32, fp16 unless int8 is required, and int8."""
    return 2 if target.precision == "int8" else 3


def _left(config: ModelConfig, dataset: Dataset, job: Job) -> float:
    return job.deadline.left() - job.pace.finishing(dataset, cost(config.arch).macs)


def _as_it_is(bundle: Path, subject: Subject, dataset: Dataset, *, precision: Precision, job: Job) -> Deployed:
    target = job.target
    found = target.format(precision)
    config = dataclasses.replace(subject.config, deployed=found.name)
    path = bundle / found.file
    if found.name != _REFERENCE:
        write_export(found.name, bundle, config, subject.state)
    write_config(config, bundle)
    refused = ""
    if precision != "fp32" and len(dataset.val):
        # `effnet export` compares with the fp32 ONNX file as well, so both accept the same files.
        before, after = (
            right_answers(Predictor(bundle, threads=job.config.threads, format=name), dataset.val)
            for name in (_REFERENCE, found.name)
        )
        if lost := refusal(compared(before, after, dataset.val, config), target.max_drop):
            refused = f"{found.name} {lost}"
    return Deployed(config=config, state=subject.state, path=path, format=found, refused=refused)


def _climbed(bundle: Path, subject: Subject, dataset: Dataset, *, folder: Path, job: Job) -> Deployed:
    target, budget = job.target, job.budget
    here = not target.profile  # the latency of this machine says nothing about the other device
    minutes = None if job.time_limit is None else INT8_SHARE * (job.config.minutes or DEFAULT_MINUTES)
    if job.deadline.limited:
        # A step that has started is finished. The first steps measure files of floats; int8 comes after them.
        step = NEARLY * job.pace.int8_step(dataset, cost(subject.config.arch).macs)
        minutes = minutes_of(_left(subject.config, dataset, job) - step)
    job.say(f"Quantizing to int8 for {target.runtime}", heading=True)
    ladder = climb(
        subject,
        dataset,
        runtime=target.runtime,
        folder=folder,
        budget=Budget(
            latency_ms=budget.latency_ms if here else None,
            size_mb=budget.size_mb,
            memory_mb=budget.memory_mb if here else None,
        ),
        precision="int8" if target.precision == "int8" else None,
        gate=Gate(max_drop=target.max_drop),
        pair_stem=here and has_vnni(),
        threads=job.config.threads,
        minutes=minutes,
        # A fit with few epochs trains no more of them here.
        epochs=job.config.epochs,
        tools=tools_of(target.runtime, stopwatch=job.procedure.stopwatch),
        listener=job.listener,
    )
    job.say(ladder.sentence)
    tried = any(find_format(step.format).precision == "int8" for step in ladder.steps) or ladder.met
    found = find_format(ladder.format)
    path = copy_export(ladder.format, ladder.folder, bundle)
    write_config(ladder.config, bundle)
    return Deployed(
        config=ladder.config,
        state=ladder.state,
        path=path,
        format=found,
        ladder=ladder.to_dict(),
        refused=_not_int8(found, target, tried=tried),
        left_out="" if tried or minutes is None else _NOT_REACHED,
    )


def _not_int8(found: Format, target: Target, *, tried: bool) -> str:
    if target.precision != "int8" or found.precision == "int8":
        return ""
    if not tried:
        return _NOT_REACHED
    return (
        f"precision must be int8, but no int8 step loses at most {100 * target.max_drop:g} percentage points and is "
        "faster or smaller"
    )
