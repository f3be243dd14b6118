"""One attempt: train, export, check, score and measure; then publish the result."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig, read_config, write_config
from effnet.bundle.names import ONNX
from effnet.bundle.weights import load_arrays_, load_state, save_bundle, state_arrays
from effnet.data.datasets import Dataset
from effnet.data.inspection.leaks import find_leaks
from effnet.jobs.fit.deploy.artifact import Artifact
from effnet.jobs.fit.deploy.costs import costed
from effnet.jobs.fit.deploy.export import Deployed, deploy
from effnet.jobs.fit.deploy.figures import figures_of, why_undecided
from effnet.jobs.fit.deploy.known import choose_known, without_score
from effnet.jobs.fit.job import Job
from effnet.jobs.fit.learn import learn
from effnet.jobs.fit.prune import change
from effnet.jobs.fit.resume import Attempt
from effnet.jobs.fit.transfer.finetune import Learned, Validation
from effnet.jobs.fit.unlabelled.rounds import Fit, learn_from_unlabelled
from effnet.jobs.threshold import with_threshold
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import Abstain, Calibration
from effnet.measurement.evaluate import Score, evaluate
from effnet.measurement.in_image import outside_ms
from effnet.measurement.speed.timing import Timing, busy_sentence
from effnet.measurement.verify import ExportCheck, check_export
from effnet.nn.dense import build_network
from effnet.planner.space import Candidate
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor
from effnet.system.machine import versions
from effnet.tasks.task import activated
from effnet.training.input.batches import eval_batches
from effnet.training.learning import learning_of

# Number of images that the export is checked on: as many as eager PyTorch computes within a second or two.
_MOST_CHECKED, _LEAST_CHECKED, _CHECK_MACS = 64, 8, 4e9


def make_artifact(candidate: Candidate, attempt: Attempt, dataset: Dataset, *, folder: Path, job: Job) -> Artifact:
    """Train a candidate in `folder`, or resume its training there, then export it and measure the file.

    Unless the attempt trains from scratch, the network starts from the candidate's pretrained weights.
    """
    made = _deployed(candidate, attempt, dataset, folder=folder, job=job)
    bundle, learned = made.bundle, made.learned
    scored = choose_known(bundle, made.deployed, dataset, job=job, mirror=attempt.recipe.augment.flip)
    deployed, spec = scored.deployed, scored.deployed.config.arch
    # The reports are written after this.
    outside = 0.0 if deployed.config.task_record.whole is None else outside_ms(Predictor(bundle), dataset.test)
    check, score, (timing, measured, measurements, predicted) = _proven(
        bundle, deployed, dataset, job=job, outside=outside
    )
    if scored.before and (over := job.budget.failures(measured)):
        # A score must not cost the budget: the file is proven again without it.
        scored = without_score(scored, bundle, "; ".join(over))
        deployed = scored.deployed
        check, score, (timing, measured, measurements, predicted) = _proven(
            bundle, deployed, dataset, job=job, outside=outside
        )
    if timing.busy and "latency_ms" not in predicted:
        job.say(busy_sentence(timing.waited, threads=timing.threads, uncertain=timing.uncertain))
    missed = job.budget.failures(measured) + ((deployed.refused,) if deployed.refused else ())
    undecided = ""
    if "latency_ms" not in predicted:
        undecided = why_undecided(job.budget, timing, measured, missed, outside_ms=outside)
    if missed and deployed.ladder is not None:
        missed += (deployed.ladder["sentence"],)
    return Artifact(
        folder=bundle,
        spec=spec,
        deployed=deployed,
        predicted=predicted,
        changes=made.changes,
        learned=learned,
        balance=attempt.recipe.balance,
        calibration=made.calibration,
        known=scored.choice,
        check=check,
        score=score,
        timing=timing,
        outside_ms=outside,
        measured=measured,
        measurements=measurements,
        left_out=tuple(filter(None, (*learned.left_out, deployed.left_out))),
        failures=missed,
        undecided=undecided,
        seconds=made.spent + time.monotonic() - made.began,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A trained network, deployed in `bundle`.

    It was trained for `spent` seconds; at `began`, of time.monotonic, all else began: students, changes, export.
    """

    bundle: Path
    learned: Learned
    changes: Mapping[str, Any]
    calibration: Calibration | None
    deployed: Deployed
    spent: float
    began: float


def _deployed(candidate: Candidate, attempt: Attempt, dataset: Dataset, *, folder: Path, job: Job) -> _Made:
    """Train a candidate in `folder`, with its unlabelled images and changes, and export it."""
    learned = learn(candidate, attempt, dataset, folder=folder, job=job)
    spent, began = learned.training.seconds, time.monotonic()
    job.say("Exporting, checking and measuring", heading=True)
    bundle = folder / "bundle"
    saved = _save_learned(bundle, attempt, dataset, learned, job=job)
    if job.unlabelled is not None:
        save = partial(_save_student, attempt, dataset, job)
        rounds = Fit(attempt=attempt, candidate=candidate, dataset=dataset, folder=folder, job=job, save=save)
        learned, saved = learn_from_unlabelled(bundle, learned, saved, rounds)
    config, state, calibration = saved
    bundle, changes = change(bundle, candidate, dataset, job=job)
    if changes:
        config, state = replace(read_config(bundle), split_seed=job.seed), load_state(bundle)
        config, calibration = _calibrated(config, state, dataset, None, job.abstain, folder=bundle)
    deployed = deploy(bundle, config, state, dataset, precision=candidate.precision, job=job)
    if deployed.path != bundle / ONNX:  # the reference of other formats, so it is proven as well
        _check(bundle, config, state, dataset, format="onnx")
    if deployed.state is not state:
        save_bundle(bundle, deployed.config, deployed.state)
        export_onnx(bundle, deployed.config, deployed.state)
    return _Made(
        bundle=bundle, learned=learned, changes=changes, calibration=calibration, deployed=deployed, spent=spent,
        began=began,
    )  # fmt: skip


def _proven(
    bundle: Path, deployed: Deployed, dataset: Dataset, *, job: Job, outside: float
) -> tuple[ExportCheck, Score, tuple[Timing, dict[str, float], tuple[dict[str, float], ...], tuple[str, ...]]]:
    """Return the check of the deployed file, its score on the test images, and its figures; see `figures_of`."""
    check = _check(bundle, deployed.config, deployed.state, dataset, format=deployed.format.name)
    score = evaluate(
        Predictor(bundle, threads=job.config.threads),
        dataset.test,
        unknown_from=job.abstain.unknown_from,
        leaked=find_leaks(dataset).names,
    )
    until = job.deadline.earlier(job.pace.report)
    return check, score, figures_of(deployed, job, until=until, outside_ms=outside)


def _save_learned(
    bundle: Path, attempt: Attempt, dataset: Dataset, learned: Learned, *, job: Job
) -> tuple[ModelConfig, Mapping[str, np.ndarray], Calibration | None]:
    """Write the trained network as a bundle with its fp32 ONNX file; return config, weights and calibration."""
    network = learned.training.model
    config = ModelConfig(
        arch=network.spec,
        preprocess=attempt.preprocess,
        class_names=dataset.class_names,
        versions=versions(),
        split_seed=job.seed,
        balanced=attempt.recipe.balance.removed,
        task=dataset.task,
        **costed(dataset, job.config.cost),
    )
    state = state_arrays(network)
    save_bundle(bundle, config, state)
    config, calibration = _calibrated(config, state, dataset, learned.validation, job.abstain, folder=bundle)
    if calibration is not None:
        job.say(f"{_temperatures(config)}. {calibration.sentence}")
    return config, state, calibration


def _save_student(
    attempt: Attempt, dataset: Dataset, job: Job, bundle: Path, learned: Learned
) -> tuple[ModelConfig, Mapping[str, np.ndarray], Calibration | None]:
    return _save_learned(bundle, attempt, dataset, learned, job=job)


def _temperatures(config: ModelConfig) -> str:
    """Return the temperature, or that of each output that has one, in words."""
    found = [f"{spec.name} {spec.temperature:g}" for spec in config.specs if spec.kind != "number"]
    if config.specs:
        return f"Temperatures: {', '.join(found)}" if found else "Numbers have no temperature"
    return f"Temperature {config.temperature:g}"


def _check(
    bundle: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    *,
    format: str,  # noqa: A002
) -> ExportCheck:
    """Compare an export in `bundle` with the eager network on test images."""
    network = build_network(config.arch)
    load_arrays_(network, state, where=str(bundle))
    images, _ = next(eval_batches(dataset.test, config.preprocess, batch_size=_num_checked(config.arch)))
    return check_export(network.eval(), Predictor(bundle, format=format), images)


def _num_checked(spec: ArchSpec) -> int:
    return int(max(_LEAST_CHECKED, min(_MOST_CHECKED, _CHECK_MACS / cost(spec).macs)))


def _calibrated(
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    validation: Validation | None,
    abstain: Abstain,
    *,
    folder: Path,
) -> tuple[ModelConfig, Calibration | None]:
    """Return the config with the temperature and threshold calibrated on the validation images, if the task has them.

    The bundle `folder` and its ONNX file get them. `validation` holds the network's logits, if already computed.
    """
    config, val = config.uncalibrated(), dataset.val
    if config.task_record.whole is not None:
        return with_threshold(config, state, dataset, folder=folder), None
    if not config.task_record.calibrated:
        export_onnx(folder, config, state)
        return config, None
    if validation is not None:
        rows, indices = activated(validation.logits, config.file_outputs), validation.indices
    elif len(val):
        write_config(config, folder)  # without a digest: the file in the folder changes
        export_onnx(folder, config, state)
        rows, indices = predict_split(Predictor(folder), val)
    else:
        rows, indices = np.empty((0, len(config.class_names))), np.empty(0, np.int64)
    config, found = learning_of(dataset).calibrated(config, rows, val.labels[indices], dataset=dataset, abstain=abstain)
    write_config(config, folder)
    export_onnx(folder, config, state)
    return config, found
