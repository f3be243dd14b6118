"""Verify a pruned network: export, check, score and time it against the original, and publish the bundle."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effnet.arch.cost import cost
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig, write_digests, write_text
from effnet.bundle.names import CONFIG, ONNX, PROOF, WEIGHTS
from effnet.bundle.split_file import SPLIT, write_split
from effnet.bundle.weights import load_state, save_bundle, state_arrays
from effnet.data.datasets import Dataset
from effnet.jobs.threshold import with_threshold
from effnet.measurement.answers import predict_split
from effnet.measurement.classification.calibration import Abstain
from effnet.measurement.evaluate import evaluate, scoring_of
from effnet.measurement.speed.stopwatch import Compared, Stopwatch
from effnet.measurement.verify import check_export
from effnet.nn.dense import DenseNetwork
from effnet.nn.network import Network
from effnet.report.cards.pruned import card
from effnet.runtimes.digests import digests_of
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import record_each
from effnet.system.machine import versions
from effnet.training.input.batches import eval_batches
from effnet.training.learning import learning_of
from effnet.weights.adapt import Arrays
from effnet.weights.labels import numbered, split_record

REPORT, CARD = "prune_report.json", "README.md"
PUBLISHED = (WEIGHTS, ONNX, SPLIT, PROOF, REPORT, CARD, CONFIG)
_CHECKED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The pruned bundle and its config, and its test data: `data` as given, and the dataset as read."""

    bundle: Path
    config: ModelConfig
    dataset: Dataset
    data: str


def prove(
    network: Network | DenseNetwork,
    original: Original,
    *,
    options: Mapping[str, Any],
    training_seconds: float,
    threads: int,
    folder: Path,
    out: Path,
    say: Callable[[str], None],
    stopwatch: Stopwatch,
) -> dict[str, Any]:
    """Export, check, score and time a pruned network, publish it into `out`, and return its report.

    `folder`, in which everything is written first, is deleted at the end. `options` are the pruning options, for the
    report.
    """
    say("Exporting to ONNX, checking, scoring and timing")
    made = folder / "bundle"
    shutil.rmtree(made, ignore_errors=True)
    state = state_arrays(network)
    config = replace(original.config.uncalibrated(), arch=network.spec, versions=versions(), deployed="onnx")
    config = _calibrated(original, config, state, made)
    save_bundle(made, config, state)
    export_onnx(made, config, state)
    write_digests(made, digests_of(made, ["onnx"]))
    check = check_export(network, Predictor(made, threads=threads), _checked(original))
    before = _with_onnx(original, folder / "original")
    record = split_record(original.dataset, folder=original.bundle)
    assert original.dataset.listed is not None
    leaked = record.leaked_names(original.dataset.listed)
    test = numbered(original.dataset.test, original.dataset.class_names, config, kind=original.dataset.label_kind)
    scores = {
        name: evaluate(Predictor(place, threads=threads), test, leaked=leaked)
        for name, place in (("before", before), ("after", made))
    }
    timed = stopwatch.compare(before / ONNX, made / ONNX, threads=threads)
    report = {
        **_figures(original, config, scores, timed),
        "task": config.task,
        "warnings": scoring_of(config.task_record).warnings_about(
            scores["after"], original.dataset, balanced=bool(config.balanced)
        ),
        "check": check.to_dict(),
        "options": dict(options),
        "original": original.bundle.resolve().name,
        "data": original.dataset.name,
        "training_seconds": training_seconds,
        "versions": versions(),
    }
    write_split(record, made)
    record_each(made, ["onnx"], into=made)
    write_text(made / CARD, card(report, name=out.name))
    write_text(made / REPORT, json.dumps(report, indent=1) + "\n")
    # config.json comes last: it makes the folder a bundle, which is then complete.
    for name in PUBLISHED:
        os.replace(made / name, out / name)
    shutil.rmtree(folder)
    return report


def _calibrated(original: Original, config: ModelConfig, state: Arrays, folder: Path) -> ModelConfig:
    """Return the config with the temperature fitted on the validation split, and the original's threshold.

    A detector has no temperature, and a threshold of its own scores.
    """
    val = original.dataset.val
    if config.arch.decoder is not None:
        folder.mkdir(parents=True)
        return with_threshold(config, state, original.dataset, folder=folder)
    if len(val):
        save_bundle(folder, config, state)
        export_onnx(folder, config, state)
        rows, indices = predict_split(Predictor(folder), val)
        config, _ = learning_of(original.dataset).calibrated(
            config, rows, val.labels[indices], dataset=original.dataset, abstain=Abstain()
        )
    pairs = zip(config.specs, original.config.specs, strict=True)
    specs = tuple(replace(spec, threshold=before.threshold) for spec, before in pairs)
    return replace(config, threshold=original.config.threshold, specs=specs)


def _checked(original: Original) -> np.ndarray:
    images, _ = next(eval_batches(original.dataset.test, original.config.preprocess, batch_size=_CHECKED))
    return images


def _with_onnx(original: Original, folder: Path) -> Path:
    """Return a folder with the original's ONNX file: the bundle or, if it has none, `folder`, created for it."""
    if (original.bundle / ONNX).is_file() and original.config.deployed == "onnx":
        return original.bundle
    config, state = replace(original.config, deployed="onnx"), load_state(original.bundle)
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    return folder


def _figures(original: Original, config: ModelConfig, scores: Mapping[str, Any], timed: Compared) -> dict[str, Any]:
    """Return the counts and measurements of the original ("before") and of the pruned network ("after")."""

    def side(name: str, spec: ArchSpec, times: tuple[float, ...]) -> dict[str, Any]:
        total, score = cost(spec), scores[name]
        return {
            "network": spec.name,
            "params": total.params,
            "macs": total.macs,
            "blocks": len(spec.blocks),
            "latency_ms": min(times),
            "latencies_ms": list(times),
            **{f"test_{key}": value for key, value in score.headline.items()},
            "test_images": score.images,
            **({"confidence": list(score.confidence)} if hasattr(score, "confidence") else {}),
        }

    return {
        "before": side("before", original.config.arch, timed.first.rounds_ms),
        "after": side("after", config.arch, timed.second.rounds_ms),
        "latency_ratio": timed.ratio,
        "points_lost": 100 * (scores["before"].figure - scores["after"].figure),
    }
