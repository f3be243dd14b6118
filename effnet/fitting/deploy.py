"""From trained weights to the file for the device: in the runtime and the precision that the plan chose, or better."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.cost import cost
from effnet.compressing.ladder import climb
from effnet.compressing.rungs import copy_export
from effnet.compressing.subject import Subject
from effnet.compressing.verdict import Gate, Limits
from effnet.data.datasets import Dataset
from effnet.exporting.qdq_stem import pairs_pay
from effnet.exporting.targets import write_export
from effnet.fitting.settings import DEFAULT_MINUTES
from effnet.fitting.target import Target
from effnet.fitting.task import Task
from effnet.fitting.timetable import INT8_SHARE, NEARLY, not_enough
from effnet.measure.answers import right_answers
from effnet.measure.paired import paired, refusal
from effnet.runtime.config import ModelConfig, write_config
from effnet.runtime.formats import Format, Precision, find_format
from effnet.runtime.predictor import Predictor

# The least minutes that a climb may be given.
_LEAST_MINUTES = 0.01
# It lies in every bundle before anything is deployed.
_REFERENCE = "onnx"
# Beside the bundle: where the steps towards int8 are made.
_CLIMB = "ladder"
_NOT_REACHED = "The time was over before there was a file of int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What goes to the device: config and weights, as the file at `path` has them, and how that came about.

    `ladder` is the record of the steps towards 8 bits, None where there were none. `refused` says why the precision
    that was wanted is not to be shipped; empty where it is. `left_out` says what there was no time for.
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
    task: Task,
) -> Deployed:
    """Writes the file for the device into the folder `bundle`, and its config anew.

    The folder has config, weights and the 32-bit ONNX file already.

    With int8 the ladder is climbed until the budget is kept; else the file is written in `precision` as it is. What
    loses more than the target's `max_drop` on the validation pictures is refused.
    """
    if precision != "int8":
        return _as_it_is(bundle, config, state, dataset, precision=precision, task=task)
    folder = bundle.parent / _CLIMB
    if not folder.exists() and (late := _too_late(config, dataset, task)):
        task.say(late)
        found = _as_it_is(bundle, config, state, dataset, precision="fp32", task=task)
        return dataclasses.replace(found, left_out=late, refused=late if task.target.precision == "int8" else "")
    return _climbed(bundle, config, state, dataset, folder=folder, task=task)


def _too_late(config: ModelConfig, dataset: Dataset, task: Task) -> str:
    """Returns a sentence where the time that is left is not enough for the least int8; empty where it is."""
    if not task.deadline.limited:
        return ""
    needs = task.pace.int8(dataset, cost(config.arch).macs, steps=least_steps(task.target))
    left = _left(config, dataset, task)
    return not_enough("int8 was not tried", needs=needs, left=left) if left < NEARLY * needs else ""


def least_steps(target: Target) -> int:
    """Returns how many steps the least int8 takes: behind 32 bits and, where int8 is no must, 16."""
    return 2 if target.precision == "int8" else 3


def _left(config: ModelConfig, dataset: Dataset, task: Task) -> float:
    return task.deadline.left() - task.pace.finishing(dataset, cost(config.arch).macs)


def _as_it_is(
    bundle: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    *,
    precision: Precision,
    task: Task,
) -> Deployed:
    target = task.target
    found = target.format(precision)
    config = dataclasses.replace(config, deployed=found.name)
    path = bundle / found.file
    if found.name != _REFERENCE:
        write_export(found.name, bundle, config, state)
    write_config(config, bundle)
    refused = ""
    if precision != "fp32" and len(dataset.val):
        # The 32-bit ONNX file is what `effnet export` judges by as well: what one ships, the other does.
        before, after = (
            right_answers(Predictor(bundle, threads=task.threads, format=name), dataset.val)
            for name in (_REFERENCE, found.name)
        )
        if lost := refusal(paired(before, after), target.max_drop):
            refused = f"{found.name} {lost}"
    return Deployed(config=config, state=state, path=path, format=found, refused=refused)


def _climbed(
    bundle: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    *,
    folder: Path,
    task: Task,
) -> Deployed:
    target, budget = task.target, task.budget
    here = not target.profile  # what this machine takes says nothing of the other one's milliseconds
    minutes = None if task.time_limit is None else INT8_SHARE * (task.minutes or DEFAULT_MINUTES)
    if task.deadline.limited:
        # A step that has begun is finished.
        seconds = _left(config, dataset, task) - task.pace.int8_step(dataset, cost(config.arch).macs)
        minutes = max(_LEAST_MINUTES, seconds / 60)
    task.say(f"Towards 8 bits in {target.runtime}", heading=True)
    ladder = climb(
        Subject(config=config, state=state),
        dataset,
        runtime=target.runtime,
        folder=folder,
        limits=Limits(
            latency_ms=budget.latency_ms if here else None,
            size_mb=budget.size_mb,
            memory_mb=budget.memory_mb if here else None,
            precision="int8" if target.precision == "int8" else None,
        ),
        gate=Gate(max_drop=target.max_drop),
        pair_stem=here and pairs_pay(),
        threads=task.threads,
        minutes=minutes,
        # Who asks for few passes over the pictures does not wait for many more here.
        epochs=task.epochs,
        listener=task.listener,
    )
    task.say(ladder.sentence)
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
        f"precision int8 was asked for, and none of its steps loses at most {100 * target.max_drop:g} points and is "
        "faster or smaller"
    )
