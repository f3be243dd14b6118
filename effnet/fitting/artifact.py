"""One attempt: train, export, check, score and measure; then publish what came of it."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset, Split, load_image
from effnet.data.leaks import find_leaks
from effnet.exporting.bundle import export_onnx
from effnet.exporting.verify import ExportCheck, check_export
from effnet.fitting.budget import Budget, failures, say, share
from effnet.fitting.candidates import Candidate
from effnet.fitting.change import change, learning_minutes, use_for
from effnet.fitting.deploy import Deployed, deploy
from effnet.fitting.device import device_of, predicted_figures
from effnet.fitting.report import write_report
from effnet.fitting.state import Attempt, write_recipe
from effnet.fitting.task import Task
from effnet.fitting.team import Training, train_together
from effnet.fitting.timetable import Deadline
from effnet.fitting.transfer import Learned, Validation, transfer
from effnet.measure.answers import predict_split
from effnet.measure.machine import versions
from effnet.measure.pace import DISTURBED, calm_pace_ms
from effnet.measure.timing import Timing, busy_sentence, time_model
from effnet.nn.network import build, zero_classifier_
from effnet.runtime.config import ONNX, WEIGHTS, ModelConfig, digests_of, read_config, write_config
from effnet.runtime.predictor import Predictor
from effnet.runtime.split_file import write_split
from effnet.system.files import written_whole
from effnet.training.batches import eval_batches
from effnet.training.calibration import Abstain, Calibration, calibrate
from effnet.training.checkpoint import trained_seconds
from effnet.training.evaluate import Score, evaluate
from effnet.training.state import network_for
from effnet.weights.bundle import load_arrays_, load_state, save_bundle, state_arrays
from effnet.weights.labels import split_record

# Pictures that the export is checked on: as many as eager can do within a second or two.
_MOST_CHECKED, _LEAST_CHECKED, _CHECK_MACS = 64, 8, 4e9
# Other processes can only slow a measurement down, so a miss is measured again, with pauses in seconds between,
# before it counts: another half minute is little beside another training.
_PAUSES = (0, 1, 2, 4, 6, 8, 10)
# So many times as long as the measurement before, one may take that goes on while others disturb it.
_MORE_PATIENT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A trained and exported network with everything measured on the exported file; `folder` holds its files.

    `measurements` are all that were made of the file, `measured` the one that counts; of it, what `predicted` names is
    what the profile of another device says. `deployed` is the file. `changes` say what was made of the network that
    was learned, as `fitting.change` has it. `seconds` is what training, over all its sessions, and this proof took.
    `undecided` says why it cannot be told whether the latency was kept, which is all that may be missed then; empty if
    it can be told. `left_out` says what there was no time for.
    """

    folder: Path
    spec: ArchSpec
    learned: Learned
    calibration: Calibration
    check: ExportCheck
    score: Score
    timing: Timing
    measured: dict[str, float]
    measurements: tuple[dict[str, float], ...]
    deployed: Deployed
    predicted: tuple[str, ...]
    changes: Mapping[str, Any]
    failures: tuple[str, ...]
    undecided: str
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def honoured(self) -> bool:
        """Whether every budget was kept."""
        return not self.failures


def make_artifact(candidate: Candidate, attempt: Attempt, dataset: Dataset, *, folder: Path, task: Task) -> Artifact:
    """Trains a candidate in `folder`, or goes on with what is there, and measures the file that comes out.

    With an attempt that is not from scratch, the network begins with the candidate's pretrained weights.
    """
    abstain = task.abstain
    learned = _learn(candidate, attempt, dataset, folder=folder, task=task)
    training = learned.training
    proving = time.monotonic()
    task.say("Exporting, checking and measuring", heading=True)
    bundle = folder / "bundle"
    config, state, calibration = _save_learned(bundle, attempt, dataset, learned, task=task)
    bundle, changes = change(bundle, candidate, dataset, task=task)
    if changes:
        config, state = replace(read_config(bundle), split_seed=task.seed), load_state(bundle)
        config, calibration = _calibrated(config, state, dataset.val, None, abstain, folder=bundle)
    deployed = deploy(bundle, config, state, dataset, precision=candidate.precision, task=task)
    if deployed.path != bundle / ONNX:  # it is what others are compared with, and proven as well
        _check(bundle, config, state, dataset, format="onnx")
    if deployed.state is not state:
        save_bundle(bundle, deployed.config, deployed.state)
        export_onnx(bundle, deployed.config, deployed.state)
    spec = deployed.config.arch
    check = _check(bundle, deployed.config, deployed.state, dataset, format=deployed.format.name)
    leaked = find_leaks(dataset).names
    score = evaluate(
        Predictor(bundle, threads=task.threads), dataset.test, unknown_from=abstain.unknown_from, leaked=leaked
    )
    # The reports are still to be drawn.
    timing, measured, measurements, predicted = _figures(deployed, task, until=task.deadline.earlier(task.pace.report))
    if timing.busy and "latency_ms" not in predicted:
        task.say(busy_sentence(timing.waited, threads=timing.threads, uncertain=timing.uncertain))
    missed = failures(task.budget, measured) + ((deployed.refused,) if deployed.refused else ())
    undecided = _undecided(task.budget, timing, measured, missed) if "latency_ms" not in predicted else ""
    if missed and deployed.ladder is not None:
        missed += (deployed.ladder["sentence"],)
    return Artifact(
        folder=bundle,
        spec=spec,
        deployed=deployed,
        predicted=predicted,
        changes=changes,
        learned=learned,
        calibration=calibration,
        check=check,
        score=score,
        timing=timing,
        measured=measured,
        measurements=measurements,
        left_out=tuple(filter(None, (*learned.left_out, deployed.left_out))),
        failures=missed,
        undecided=undecided,
        seconds=training.seconds + time.monotonic() - proving,
    )


def _save_learned(
    bundle: Path, attempt: Attempt, dataset: Dataset, learned: Learned, *, task: Task
) -> tuple[ModelConfig, Mapping[str, np.ndarray], Calibration]:
    """Writes the learned network as a bundle with its 32-bit ONNX file; returns config, weights and calibration."""
    network = learned.training.model
    config = ModelConfig(
        arch=network.spec,
        preprocess=attempt.preprocess,
        class_names=dataset.class_names,
        versions=versions(),
        split_seed=task.seed,
    )
    state = state_arrays(network)
    save_bundle(bundle, config, state)
    config, calibration = _calibrated(config, state, dataset.val, learned.validation, task.abstain, folder=bundle)
    task.say(f"Temperature {calibration.temperature:g}. {calibration.sentence}")
    return config, state, calibration


def _check(
    bundle: Path,
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    dataset: Dataset,
    *,
    format: str,  # noqa: A002
) -> ExportCheck:
    """Compares an export in `bundle` with the eager network on test pictures."""
    network = build(config.arch)
    load_arrays_(network, state, where=str(bundle))
    images, _ = next(eval_batches(dataset.test, config.preprocess, batch_size=_num_checked(config.arch)))
    return check_export(network.eval(), Predictor(bundle, format=format), images)


def _num_checked(spec: ArchSpec) -> int:
    return int(max(_LEAST_CHECKED, min(_MOST_CHECKED, _CHECK_MACS / cost(spec).macs)))


def _learn(candidate: Candidate, attempt: Attempt, dataset: Dataset, *, folder: Path, task: Task) -> Learned:
    spec = candidate.whole or candidate.spec

    # Decided once, so that learning never takes what is kept for the rest.
    later = use_for(candidate, dataset, task).later

    def left() -> float:
        return max(0.0, task.deadline.left() - later)

    if attempt.strategy != "scratch":
        learned = transfer(
            spec,
            attempt,
            dataset,
            weights=candidate.weights,
            model=task.model or None,
            epochs=task.epochs or task.asked.value("train.epochs"),
            settings=task.asked.settings,
            minutes=learning_minutes(candidate, task),
            pace=task.pace if task.deadline.limited else None,
            left=left,
            folder=folder,
            listener=task.listener,
            ranks=task.ranks,
        )
        if learned.recipe is not None:
            write_recipe(learned.recipe, task.out)
        return learned
    recipe = attempt.recipe
    task.say(f"Training {spec.name} for {recipe.train.epochs} epochs", heading=True)
    write_recipe(recipe, task.out)
    model = network_for(spec, recipe)
    if recipe.model.zero_classifier:
        zero_classifier_(model)
    seconds = None if task.time_limit is None else 66 * task.time_limit
    if task.deadline.limited:
        seconds = trained_seconds(folder) + left()
    training = train_together(
        Training(
            model=model,
            dataset=dataset,
            recipe=recipe,
            preprocess=attempt.preprocess,
            folder=folder,
            deadline_seconds=seconds,
        ),
        task.ranks,
        listener=task.listener,
    )
    return Learned(method="scratch", training=training, recipe=recipe)


def _calibrated(
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    val: Split,
    validation: Validation | None,
    abstain: Abstain,
    *,
    folder: Path,
) -> tuple[ModelConfig, Calibration]:
    """Returns the config with the temperature and threshold that suit `val`; the bundle `folder` gets it, and its file.

    `validation` are the network's answers, where they are known already.
    """
    config = replace(config, temperature=1.0, threshold=None)
    if validation is not None:
        probabilities, indices = softmax(validation.logits, axis=1), validation.indices
    elif len(val):
        write_config(config, folder)  # it names no file: the one that lies there changes
        export_onnx(folder, config, state)
        probabilities, indices = predict_split(Predictor(folder), val)
    else:
        probabilities, indices = np.empty((0, len(config.class_names))), np.empty(0, np.int64)
    found = calibrate(probabilities, val.labels[indices], abstain)
    config = replace(config, temperature=found.temperature, threshold=found.threshold)
    write_config(config, folder)
    export_onnx(folder, config, state)
    return config, found


def _figures(
    deployed: Deployed, task: Task, *, until: Deadline
) -> tuple[Timing, dict[str, float], tuple[dict[str, float], ...], tuple[str, ...]]:
    """Returns what was measured of the file, with another device's predictions in place of what they tell."""
    device, spec = device_of(task), deployed.config.arch
    here = task.budget if device is None else replace(task.budget, **dict.fromkeys(device.keys))
    timing, measured, measurements = _measure(deployed.path, spec, here, threads=task.threads, until=until)
    if device is None:
        return timing, measured, measurements, ()
    measured |= predicted_figures(device, spec, deployed.format.precision)
    return timing, measured, measurements, device.keys


def _measure(
    path: Path, spec: ArchSpec, budget: Budget, *, threads: int, until: Deadline
) -> tuple[Timing, dict[str, float], tuple[dict[str, float], ...]]:
    """Measures the file, and again while it misses the budget on latency or memory; the last says all of them.

    No measurement begins that might end after `until`; the first always does.
    Returned is the first measurement that keeps the budget or, where none does, the one that misses least.
    """
    total, calm = cost(spec), math.inf
    found: list[tuple[Timing, dict[str, float]]] = []
    took = 0.0
    for pause in _PAUSES:
        if found and until.left() < pause + _MORE_PATIENT * took:
            break
        time.sleep(pause)
        start = until.clock()
        seconds = 0.3 if budget.asked() else 0.1
        timing = time_model(path, threads=threads, rounds=5, seconds=seconds, pace_ms=DISTURBED * calm)
        took = until.clock() - start
        counts = {"params": total.params, "macs": total.macs, "size_mb": timing.size_mb}
        found.append((timing, {"latency_ms": timing.p50_ms, **counts, "memory_mb": timing.memory_mb}))
        # What is counted stays as it is however often it is looked at.
        if failures(budget, counts) or not failures(budget, found[-1][1]):
            break
        # A second look goes on for as long as a neighbour disturbs it.
        calm = min(calm, calm_pace_ms(threads))
    timing, measured = min(found, key=lambda pair: share(budget, pair[1]))
    # No run of any of them was faster than what the file takes.
    timing = replace(timing, least_ms=min(each.least_ms for each, _ in found))
    return timing, measured, tuple(values | {"waited": round(each.waited, 3)} for each, values in found)


def _undecided(budget: Budget, timing: Timing, measured: dict[str, float], missed: tuple[str, ...]) -> str:
    """Returns what to say if other processes hide whether the latency is kept, and nothing else is missed."""
    over = failures(budget, measured)
    kept_at_least = not failures(budget, measured | {"latency_ms": timing.least_ms})
    if not (over and missed == over and kept_at_least and timing.uncertain):
        return ""
    least, most = say("latency_ms", timing.least_ms), say("latency_ms", timing.p50_ms)
    return (
        f"{busy_sentence(timing.waited, threads=timing.threads, uncertain=True)}. Its fastest run took {least}, the "
        f"median {most}, and {say('latency_ms', budget.latency_ms)} are allowed"
    )


def publish(artifact: Artifact, report: dict[str, Any], dataset: Dataset, out: Path) -> None:
    """Moves the bundle's files into `out` and writes the reports beside them."""
    found = artifact.deployed.format
    for name in dict.fromkeys((WEIGHTS, ONNX, *found.others, found.file)):
        with written_whole(out / name) as beside:
            shutil.copyfile(artifact.folder / name, beside)
    write_split(split_record(dataset), out)
    # It comes last: with it the folder is a bundle.
    write_config(read_config(artifact.folder), out, digests=digests_of(out, ["onnx", found.name]))
    write_report(report, out, pictures=_pictures(artifact, dataset) if report["report_images"] else ())


def _pictures(artifact: Artifact, dataset: Dataset) -> Sequence[np.ndarray]:
    return [load_image(dataset.test, m.index, channels=dataset.channels) for m in artifact.score.mistakes]
