"""The report of a fit, from its plan and its finished attempt."""

from collections.abc import Sequence
from datetime import UTC, datetime

from effnet.arch.describe import stage_rows
from effnet.arch.layers import output_shapes
from effnet.data.datasets import Dataset
from effnet.data.inspection.findings import DataReport
from effnet.data.inspection.inspect import describe
from effnet.jobs.fit.deploy.artifact import Artifact
from effnet.jobs.fit.resume import Plan
from effnet.measurement.budget import Budget
from effnet.measurement.evaluate import scoring_of
from effnet.measurement.speed.timing import busy_sentence
from effnet.planner.space import Candidate, title_of
from effnet.report.annotations import facts_of
from effnet.report.facts import (
    AttemptRow,
    CandidateRow,
    Counts,
    DataFacts,
    DeployedFacts,
    EpochRow,
    ExportFacts,
    HeadFacts,
    LatencyFacts,
    LaterFacts,
    Machine,
    Measured,
    NetworkFacts,
    SearchFacts,
    TimeUse,
    TrainingFacts,
    WeightsFacts,
)
from effnet.report.model import Report
from effnet.report.search.searched import Searched
from effnet.runtimes.installed import runtime_version
from effnet.system.machine import machine, versions
from effnet.system.options import Given

_MOST_OTHERS = 1000


def summarize(
    plan: Plan,
    artifact: Artifact,
    dataset: Dataset,
    report: DataReport,
    *,
    budget: Budget,
    command: str,
    options: tuple[Given, ...],
    seed: int,
    data: str,
    report_images: bool = True,
    time: TimeUse | None = None,
    searched: Searched | None = None,
) -> Report:
    """Return the whole report; `report_images` says that report.html may show test images.

    `time` is the use of the minutes, None if none were given; `searched` the search that found the network.
    """
    honoured = None if artifact.undecided else artifact.honoured
    earlier = [AttemptRow(**{**row, "failures": tuple(row["failures"])}) for row in plan.failed]
    last = AttemptRow(
        name=artifact.spec.name,
        title=_title(artifact),
        honoured=honoured,
        failures=artifact.failures,
        seconds=artifact.seconds,
    )
    return Report(
        honoured=honoured,
        budget=budget,
        measured=Measured(**artifact.measured),  # type: ignore[arg-type]  # counts are whole
        task=dataset.task,
        seconds=plan.seconds + sum(attempt.seconds for attempt in (last, *earlier)) + _searching(searched),
        failures=artifact.failures,
        undecided=artifact.undecided,
        busy=_busy(plan, artifact),
        time=time,
        command=command,
        options=options,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=_dataset(dataset, report, data),
        network=_network(artifact),
        candidates=_candidates(plan.candidates),
        num_candidates=len(plan.candidates),
        training=_training(artifact),
        calibration=artifact.calibration,
        test=artifact.score,
        report_images=len(artifact.score.mistakes) if report_images else 0,
        warnings=_warnings(artifact, dataset),
        export=ExportFacts(**artifact.check.to_dict()),
        deployed=_deployed(artifact),
        latency=_latency(artifact),
        machine=Machine(**machine()),
        versions=versions(),
        attempts=(*earlier, last),
        searched=searched,
        known=artifact.known,
    )


def _searching(searched: Searched | None) -> float:
    """Return the seconds before the fit; assembling is part of its attempt."""
    return searched.seconds if searched and not searched.scored else 0.0


def _warnings(artifact: Artifact, dataset: Dataset) -> tuple[str, ...]:
    config = artifact.deployed.config
    found = scoring_of(config.task_record).warnings_about(artifact.score, dataset, balanced=bool(config.balanced))
    return tuple(found)


def _busy(plan: Plan, artifact: Artifact) -> tuple[str, ...]:
    """Return sentences on the measurements that a busy machine may have distorted."""
    timing = artifact.timing
    found = artifact.undecided
    if timing.busy and not found and "latency_ms" not in artifact.predicted:
        found = busy_sentence(timing.waited, threads=timing.threads)
    return tuple(f"{sentence}." for sentence in (plan.busy, found) if sentence)


def _candidates(table: Sequence[Candidate]) -> tuple[CandidateRow, ...]:
    """Return the rows of the measured and tried candidates, and of as many others as a page can hold.

    These others are the nearest to the taken one in the order of expected accuracy.
    """
    taken = next((i for i, c in enumerate(table) if c.status == "taken"), 0)
    others = [i for i, c in enumerate(table) if c.latency_ms is None and c.status not in ("taken", "fits", "failed")]
    left_out = set(sorted(others, key=lambda i: abs(i - taken))[_MOST_OTHERS:])
    return tuple(CandidateRow(**candidate.to_row()) for i, candidate in enumerate(table) if i not in left_out)


def _dataset(dataset: Dataset, report: DataReport, data: str) -> DataFacts:
    return DataFacts(
        name=dataset.name,
        source=data,
        class_names=dataset.class_names,
        channels=dataset.channels,
        counts=Counts(train=len(dataset.train), val=len(dataset.val), test=len(dataset.test)),
        lines=tuple(line for line in describe(report) if line not in dataset.notes),
        notes=dataset.notes,
        findings=report,
        annotations=facts_of(dataset),
    )


def _network(artifact: Artifact) -> NetworkFacts:
    spec = artifact.spec
    return NetworkFacts(
        name=spec.name,
        title=_title(artifact),
        lineage=spec.lineage,
        params=int(artifact.measured["params"]),
        macs=int(artifact.measured["macs"]),
        resolution=spec.resolution,
        activation=spec.activation,
        stages=tuple(stage_rows(spec)),
        height=spec.height,
        outputs=None if spec.decoder is None else output_shapes(spec, spec.input_size),
    )


def _title(artifact: Artifact) -> str:
    return title_of(artifact.spec, artifact.deployed.format.precision)


def _training(artifact: Artifact) -> TrainingFacts:
    learned = artifact.learned
    training = learned.training
    head = HeadFacts(**learned.head) if learned.head else None
    return TrainingFacts(
        method=learned.method,
        weights=head.weights if head else (learned.start or {}).get("weights", ""),
        head=head,
        start=WeightsFacts(**learned.start) if learned.start else None,
        epochs=tuple(EpochRow.from_row(row) for row in training.history),
        best_epoch=training.best_epoch,
        stopped=training.stopped,
        device=training.device,
        seconds=training.seconds,
        balance=artifact.balance,
        **artifact.changes,
        unlabelled=learned.unlabelled,
        later=LaterFacts(**learned.later.to_facts()) if learned.later else None,
        recipe=learned.recipe.to_dict() if learned.recipe else None,
    )


def _deployed(artifact: Artifact) -> DeployedFacts:
    found = artifact.deployed
    return DeployedFacts(
        format=found.format.name,
        file=found.format.file,
        runtime=found.format.runtime,
        precision=found.format.precision,
        ladder=SearchFacts.from_dict(found.ladder) if found.ladder else None,
        predicted=artifact.predicted,
    )


def _latency(artifact: Artifact) -> LatencyFacts:
    timing, runtime = artifact.timing, artifact.deployed.format.runtime
    return LatencyFacts(
        p50_ms=timing.p50_ms,
        p95_ms=timing.p95_ms,
        least_ms=timing.least_ms,
        busy=timing.busy,
        waited=round(timing.waited, 3),
        rounds_ms=timing.rounds_ms,
        runs=timing.runs,
        measurements=artifact.measurements,
        load_ms=timing.load_ms,
        threads=timing.threads,
        runtime=f"{runtime} {runtime_version(runtime)}".rstrip(),
        batch=timing.batch,
        outside_ms=round(artifact.outside_ms, 4),
    )
