"""The report of a fit as data: the content of report.json, from which the pages are rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from effnet.arch.describe import stage_rows
from effnet.data.datasets import Dataset
from effnet.data.inspection.inspect import DataReport, describe
from effnet.jobs.fit.attempt import Artifact
from effnet.jobs.fit.resume import Plan
from effnet.measurement.evaluate import scoring_of
from effnet.measurement.timing import busy_sentence
from effnet.planner.budget import Budget
from effnet.planner.space import Candidate
from effnet.runtimes.installed import runtime_version
from effnet.system.machine import machine, versions

_MOST_OTHERS = 1000


def summarize(
    plan: Plan,
    artifact: Artifact,
    dataset: Dataset,
    report: DataReport,
    *,
    budget: Budget,
    command: str,
    seed: int,
    data: str,
    report_images: bool = True,
    time: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the whole report as JSON-able data; `report_images` says that report.html may show test images.

    `time` is the use of the minutes, None if none were given.
    """
    honoured = None if artifact.undecided else artifact.honoured
    last = {"name": artifact.spec.name, "honoured": honoured, "failures": list(artifact.failures)}
    last["seconds"] = artifact.seconds
    return {
        "honoured": honoured,
        "budget": budget.to_dict(),
        "measured": artifact.measured,
        "task": dataset.task,
        **artifact.score.headline,
        "seconds": plan.seconds + artifact.seconds + sum(attempt["seconds"] for attempt in plan.failed),
        "failures": list(artifact.failures),
        "undecided": artifact.undecided,
        "busy": _busy(plan, artifact),
        "time": time,
        "command": command,
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": _dataset(dataset, report, data),
        "network": _network(artifact),
        "candidates": _candidates(plan.candidates),
        "num_candidates": len(plan.candidates),
        "training": _training(artifact),
        "calibration": None if artifact.calibration is None else artifact.calibration.to_dict(),
        "test": artifact.score.to_dict(),
        "report_images": len(artifact.score.mistakes) if report_images else 0,
        "warnings": scoring_of(artifact.deployed.config.task_record).warnings_about(
            artifact.score, dataset, balanced=bool(artifact.deployed.config.balanced)
        ),
        "export": artifact.check.to_dict(),
        "deployed": _deployed(artifact),
        "latency": _latency(artifact),
        "machine": machine(),
        "versions": versions(),
        "attempts": [*plan.failed, last],
    }


def _busy(plan: Plan, artifact: Artifact) -> list[str]:
    """Return sentences on the measurements that a busy machine may have distorted."""
    timing = artifact.timing
    found = artifact.undecided
    if timing.busy and not found and "latency_ms" not in artifact.predicted:
        found = busy_sentence(timing.waited, threads=timing.threads)
    return [f"{sentence}." for sentence in (plan.busy, found) if sentence]


def _candidates(table: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the rows of the measured and tried candidates, and of as many others as a page can hold.

    These others are the nearest to the taken one in the order of expected accuracy.
    """
    taken = next((i for i, c in enumerate(table) if c.status == "taken"), 0)
    others = [i for i, c in enumerate(table) if c.latency_ms is None and c.status not in ("taken", "fits", "failed")]
    left_out = set(sorted(others, key=lambda i: abs(i - taken))[_MOST_OTHERS:])
    return [candidate.to_row() for i, candidate in enumerate(table) if i not in left_out]


def _dataset(dataset: Dataset, report: DataReport, data: str) -> dict[str, Any]:
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {
        "name": dataset.name,
        "source": data,
        "class_names": list(dataset.class_names),
        "channels": dataset.channels,
        "counts": {name: len(split) for name, split in splits.items()},
        "lines": [line for line in describe(report) if line not in dataset.notes],
        "notes": list(dataset.notes),
        "findings": report.to_dict(),
    }


def _network(artifact: Artifact) -> dict[str, Any]:
    spec = artifact.spec
    return {
        "name": spec.name,
        "params": artifact.measured["params"],
        "macs": artifact.measured["macs"],
        "resolution": spec.resolution,
        "activation": spec.activation,
        "stages": [asdict(row) for row in stage_rows(spec)],
    }


def _training(artifact: Artifact) -> dict[str, Any]:
    learned = artifact.learned
    training = learned.training
    return {
        "method": learned.method,
        "weights": learned.head["weights"] if learned.head else "",
        "head": dict(learned.head) if learned.head else None,
        "epochs": list(training.history),
        "best_epoch": training.best_epoch,
        "stopped": training.stopped,
        "device": training.device,
        "seconds": training.seconds,
        "balance": asdict(artifact.balance),
        **artifact.changes,
        "recipe": learned.recipe.to_dict() if learned.recipe else None,
    }


def _deployed(artifact: Artifact) -> dict[str, Any]:
    found = artifact.deployed
    return {
        "format": found.format.name,
        "file": found.format.file,
        "runtime": found.format.runtime,
        "precision": found.format.precision,
        "ladder": found.ladder,
        "predicted": list(artifact.predicted),
    }


def _latency(artifact: Artifact) -> dict[str, Any]:
    timing, runtime = artifact.timing, artifact.deployed.format.runtime
    return {
        "p50_ms": timing.p50_ms,
        "p95_ms": timing.p95_ms,
        "least_ms": timing.least_ms,
        "busy": timing.busy,
        "waited": round(timing.waited, 3),
        "rounds_ms": list(timing.rounds_ms),
        "runs": timing.runs,
        "measurements": list(artifact.measurements),
        "load_ms": timing.load_ms,
        "threads": timing.threads,
        "runtime": f"{runtime} {runtime_version(runtime)}".rstrip(),
        "batch": timing.batch,
    }
