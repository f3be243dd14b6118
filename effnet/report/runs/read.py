"""Runs read back from their folders: plain JSON, without torch; a damaged run lists its problems."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os.path import isdir, isfile
from pathlib import Path
from statistics import median
from typing import Any, Literal

from effnet.bundle.names import CHECKPOINT, CONFIG, METRICS, PLAN, RECIPE, REPORT, RUN
from effnet.errors import BundleError, InputError
from effnet.measurement.classification.score import ClassificationScore
from effnet.report.model import Report
from effnet.report.runs.lenient import at, epochs_of, finite, load, rows
from effnet.system.records import to_data
from effnet.tasks.registry import find_task
from effnet.tasks.task import Task

State = Literal["finished", "budget missed", "budget undecided", "running", "interrupted"]

# The files that training writes; the modules with their names load torch.
_ATTEMPT = re.compile(r"attempt-(\d+)")
# A live run writes a checkpoint more often than this; a step of a huge network may take long.
_STILL_SECONDS = 120.0
# The task of a run that names none.
CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run, read from its folder; unknown values are None or empty.

    `network` is the exact name of its network, `title` the short one that people read.

    `when` is the time of its report or of its last write, ISO 8601 in UTC. `epochs` are done, of `planned_epochs`.
    `figures` are those of its task by their keys: on the validation images in the best epoch, such as val_accuracy, and
    on the test images, such as test_accuracy; None if unknown. `images_per_second` is the median of the
    epochs, `seconds` those of training. `settings` and `recipe` are its options, `history` its epochs as in
    metrics.jsonl, `problems` the parts that cannot be read.
    """

    folder: Path
    when: str
    state: State
    data: str = ""
    network: str = ""
    title: str = ""
    task: str = CLASSIFICATION
    device: str = ""
    epochs: int = 0
    planned_epochs: int | None = None
    best_epoch: int | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    figures: Mapping[str, float | None]
    measured: Mapping[str, float]
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    problems: Sequence[str]

    @property
    def val_figure(self) -> float | None:
        """The figure of the task (`Task.figure`) on the validation images, in the best epoch."""
        return self.figures.get(f"val_{find_task(self.task).figure.key}")

    @property
    def test_figure(self) -> float | None:
        """The figure of the task on the test images, None without a report."""
        return self.figures.get(f"test_{find_task(self.task).figure.key}")

    def to_row(self) -> dict[str, Any]:
        """Return a summary of the run as JSON-able data."""
        names = (
            "when", "state", "data", "task", "network", "device", "epochs", "planned_epochs", "best_epoch",
            "images_per_second", "seconds",
        )  # fmt: skip
        row = {"folder": str(self.folder)} | {name: getattr(self, name) for name in names}
        return row | dict(self.figures) | {"problems": list(self.problems)}


def find_runs(folder: Path, *, now: float) -> tuple[Run, ...]:
    """Return every run in or below `folder`, the latest first; `now` is the time in seconds since the epoch.

    Raises InputError if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"FOLDER must be a folder to look for runs in; there is no folder {folder}")
    found = []
    for name, below, _ in os.walk(folder):
        below[:] = sorted(inner for inner in below if not inner.startswith("."))
        if _is_run(Path(name)):
            found.append(read_run(Path(name), now=now))
            below.clear()
    return tuple(sorted(found, key=lambda run: run.when, reverse=True))


def read_run(folder: Path, *, now: float) -> Run:
    """Return the run in `folder`, which `fit` or `train` wrote, or one of its attempts.

    Raises InputError if the folder holds no run at all; anything less is among the run's problems.
    """
    if not _is_run(folder):
        raise InputError(
            f"RUN must be a folder that effnet fit or train wrote to; {folder} has neither {RUN}/{PLAN} nor {REPORT}. "
            "`effnet runs list FOLDER` lists the runs below a folder"
        )
    problems: list[str] = []
    out, number = _place(folder)
    plan = None if out is None else load(out / RUN / PLAN, problems)
    report = None if out is None else _load_report(out / REPORT, problems)
    number = number or 1 + len(rows(at(plan, "failed")))
    if report and number < len(report.attempts):
        report = None  # it is of a later attempt
    attempt = folder if out is None else out / RUN / f"attempt-{number}"
    if out is not None and not plan and not report and not problems:
        problems.append(f"there is no {RUN}/{PLAN}, so its options are unknown")
    history = epochs_of(attempt / METRICS, problems)
    if report and not history:
        history = tuple(to_data(epoch) for epoch in report.training.epochs)
    touched = _touched(out or folder, attempt)
    planned = at(plan, "attempts", number - 1)
    candidate = at(plan, "candidates", at(planned, "candidate"))
    task = _task(report, plan, problems)
    return Run(
        folder=folder,
        when=_moment(report.created if report else None, touched),
        state=_state(report, now - touched),
        history=history,
        problems=tuple(problems),
        task=task.name,
        **_asked(at(plan, "options"), planned, candidate, report, attempt, problems),
        **_results(task, report, candidate, history, at(planned, "recipe")),
    )


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested groups as one level with dotted names: {"train": {"lr": 1}} becomes {"train.lr": 1}.

    The groups of a list are numbered from 1, as in stages.1.epochs.
    """
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_run(folder: Path) -> bool:
    # Unlike Path's, these return False if a folder may not be read.
    planned = isfile(folder / RUN / PLAN) or isdir(folder / RUN / "attempt-1")
    finished = isfile(folder / REPORT) and isfile(folder / CONFIG)
    return planned or finished or isfile(folder / METRICS) or _place(folder)[1] > 0


def _place(folder: Path) -> tuple[Path | None, int]:
    """Return the output folder and the attempt's number, 0 for the last; a training folder alone has neither."""
    path = folder.absolute()
    match = _ATTEMPT.fullmatch(path.name)
    if match and path.parent.name == RUN and isfile(path.parent / PLAN) and isdir(folder):
        return path.parent.parent, int(match[1])
    bare = isfile(folder / METRICS) and not isdir(folder / RUN)
    return (None if bare else folder), 0


def _load_report(path: Path, problems: list[str]) -> Report | None:
    data = load(path, problems)
    try:
        return None if data is None else Report.from_dict(data)
    except BundleError as error:
        problems.append(f"{path.name}: {error}")
        return None


def _touched(out: Path, attempt: Path) -> float:
    """Return the time of the run's last write, in seconds since 1970."""
    paths = (out, out / RUN / PLAN, out / REPORT, attempt, attempt / METRICS, attempt / CHECKPOINT)
    return max(os.path.getmtime(path) for path in paths if os.path.exists(path))


def _moment(created: Any, touched: float) -> str:
    try:
        time = datetime.fromisoformat(created).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        time = datetime.fromtimestamp(touched, UTC)
    return time.isoformat(timespec="seconds")


def _state(report: Report | None, idle: float) -> State:
    if report is None:
        return "running" if idle < _STILL_SECONDS else "interrupted"
    if report.undecided:
        return "budget undecided"
    return "budget missed" if report.honoured is False else "finished"


def _asked(
    options: Any, planned: Any, candidate: Any, report: Report | None, attempt: Path, problems: list[str]
) -> dict[str, Any]:
    """Return the options of the run: data, network, settings, recipe and the planned epochs."""
    data = report.dataset.source if report else at(options, "data") or ""
    network = report.network.name if report else at(candidate, "name") or ""
    # Fine-tuning keeps its own recipe beside its checkpoint; a head alone has none.
    own = load(attempt / RECIPE, problems) or at(planned, "recipe")
    recipe = report.training.recipe if report else own
    recipe = recipe if isinstance(recipe, Mapping) else {}
    epochs = next((value for key, value in flatten(recipe).items() if key.split(".")[-1] == "epochs"), None)
    settings = {
        "data": data,
        "network": network,
        "weights": at(candidate, "weights"),
        "method": report.training.method if report else at(planned, "strategy"),
        "preprocess": at(planned, "preprocess"),
    }
    return {
        "data": str(data),
        "network": str(network),
        "title": report.network.title if report else str(at(candidate, "title") or network),
        "device": report.training.device if report else "",
        "planned_epochs": epochs if isinstance(epochs, int) else None,
        "recipe": recipe,
        "settings": {key: value for key, value in settings.items() if value not in (None, "")},
    }


def _task(report: Report | None, plan: Any, problems: list[str]) -> Task:
    """Return the task of the run; a folder of epochs alone does not name it."""
    name = report.task if report else at(plan, "task") or CLASSIFICATION
    try:
        return find_task(name)
    except InputError as error:
        problems.append(f"{PLAN}: {error}")
        return find_task(CLASSIFICATION)


def _results(
    task: Task, report: Report | None, candidate: Any, history: Sequence[Mapping[str, Any]], recipe: Any
) -> dict[str, Any]:
    """Return the results of the run so far."""
    balance = report.training.balance.method if report else at(recipe, "balance", "method")
    figure = task.selected_by(balanced=balance not in (None, "none"))
    scores = [finite(row.get(f"val_{figure.key}")) for row in history]
    best = max((s for s in scores if s is not None), key=figure.better, default=None)
    top = 0 if best is None else scores.index(best) + 1
    best_epoch = report.training.best_epoch if report else top
    if report and report.training.head and not best_epoch:  # no epoch was better than the head, which was kept
        head = report.training.head
        values = (head.val_figure, head.val_balanced_figure)
        kept: Mapping[str, Any] = {f"val_{f.key}": v for f, v in zip(task.figures, values, strict=False)}
    else:
        number = best_epoch if 0 < best_epoch <= len(history) else top
        kept = history[number - 1] if number else {}
    speeds = [s for row in history if (s := finite(row.get("images_per_second"))) is not None]
    laps = [s for row in history if (s := finite(row.get("seconds"))) is not None]
    return {
        "epochs": len(history),
        "best_epoch": best_epoch or None,
        "figures": {
            f"{split}_{found.key}": finite(values.get(f"{split}_{found.key}"))
            for split, values in {"val": kept, "test": report.headline if report else {}}.items()
            for found in task.figures
        },
        "images_per_second": median(speeds) if speeds else None,
        "seconds": finite(report.training.seconds) if report else sum(laps) if laps else None,
        "measured": _measured(report, candidate),
    }


def _measured(report: Report | None, candidate: Any) -> dict[str, float]:
    """Return the figures of the deployed file, and the expected calibration error of a classifier."""
    if report:
        figures = asdict(report.measured)
        if isinstance(report.test, ClassificationScore):
            figures["ece"] = report.test.sureness.ece
    else:  # counts of the plan are exact; its other measurements are not of the trained file
        figures = {key: at(candidate, key) for key in ("params", "macs")}
    return {key: value for key, value in figures.items() if finite(value) is not None}
