"""Runs read back from their folders: plain JSON, without torch; a damaged run lists its problems."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import isdir, isfile
from pathlib import Path
from statistics import median
from typing import Any, Literal

from effnet.bundle.names import CHECKPOINT, CONFIG, METRICS, PLAN, RECIPE, REPORT, RUN
from effnet.errors import InputError
from effnet.system.files import MAX_JSON_BYTES, read_bytes, read_json
from effnet.system.text import reason_of

State = Literal["finished", "budget missed", "budget undecided", "running", "interrupted"]

# The files that training writes; the modules with their names load torch.
_ATTEMPT = re.compile(r"attempt-(\d+)")
# A live run writes a checkpoint more often than this; a step of a huge network may take long.
_STILL_SECONDS = 120.0
_HUGE = 1e300
_MEASURED = ("latency_ms", "params", "macs", "size_mb", "memory_mb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run, read from its folder; unknown values are None or empty.

    `when` is the time of its report or of its last write, ISO 8601 in UTC. `epochs` are done, of `planned_epochs`.
    `val_accuracy` and `val_balanced_accuracy` are those of the best epoch, `images_per_second` the median of the
    epochs, `seconds` those of training. `settings` and `recipe` are its options, `history` its epochs as in
    metrics.jsonl, `problems` the parts that cannot be read.
    """

    folder: Path
    when: str
    state: State
    data: str = ""
    network: str = ""
    device: str = ""
    epochs: int = 0
    planned_epochs: int | None = None
    best_epoch: int | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    val_balanced_accuracy: float | None = None
    test_balanced_accuracy: float | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    measured: Mapping[str, float]
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    problems: Sequence[str]

    def to_row(self) -> dict[str, Any]:
        """Return a summary of the run as JSON-able data."""
        names = (
            "when", "state", "data", "network", "device", "epochs", "planned_epochs", "best_epoch", "val_accuracy",
            "test_accuracy", "val_balanced_accuracy", "test_balanced_accuracy", "images_per_second", "seconds",
        )  # fmt: skip
        row = {"folder": str(self.folder)} | {name: getattr(self, name) for name in names}
        return row | {"problems": list(self.problems)}


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
    plan, report = ({}, {}) if out is None else (_load(out / RUN / PLAN, problems), _load(out / REPORT, problems))
    number = number or 1 + len(_rows(_at(plan, "failed")))
    if number < len(_rows(_at(report, "attempts"))):
        report = {}  # it is of a later attempt
    attempt = folder if out is None else out / RUN / f"attempt-{number}"
    if out is not None and not plan and not report and not problems:
        problems.append(f"there is no {RUN}/{PLAN}, so its options are unknown")
    history = _history(attempt / METRICS, problems) or _rows(_at(report, "training", "epochs"))
    touched = _touched(out or folder, attempt)
    planned = _at(plan, "attempts", number - 1)
    candidate = _at(plan, "candidates", _at(planned, "candidate"))
    return Run(
        folder=folder,
        when=_moment(_at(report, "created"), touched),
        state=_state(report, now - touched),
        history=history,
        problems=tuple(problems),
        **_asked(_at(plan, "options"), planned, candidate, report, attempt, problems),
        **_results(report, candidate, history, _at(planned, "recipe")),
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
    whole = folder.absolute()
    match = _ATTEMPT.fullmatch(whole.name)
    if match and whole.parent.name == RUN and isfile(whole.parent / PLAN) and isdir(folder):
        return whole.parent.parent, int(match[1])
    bare = isfile(folder / METRICS) and not isdir(folder / RUN)
    return (None if bare else folder), 0


def _load(path: Path, problems: list[str]) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one if there is none, with a problem if it is damaged."""
    try:
        data = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {reason_of(error)}")
        return {}
    if not isinstance(data, dict):
        problems.append(f"{path.name} must hold an object, but holds a {type(data).__name__}")
        return {}
    return data


def _history(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Return the epochs that can be read; the last line of a killed or live run may be half a line."""
    try:
        lines = read_bytes(path, limit_bytes=MAX_JSON_BYTES).decode("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {reason_of(error)}")
        return ()
    rows: list[Mapping[str, Any]] = []
    bad = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad.append(str(number))
    if bad:
        problems.append(f"{path.name} has no epoch in line {', '.join(bad)}")
    return tuple(rows)


def _rows(value: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _at(data: Any, *keys: Any) -> Any:
    """Return the value at the end of a path through nested data, or None if the path ends before."""
    for key in keys:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and 0 <= key < len(data):
            data = data[key]
        else:
            return None
    return data


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


def _state(report: Mapping[str, Any], idle: float) -> State:
    if report:
        if report.get("undecided"):
            return "budget undecided"
        return "budget missed" if report.get("honoured") is False else "finished"
    return "running" if idle < _STILL_SECONDS else "interrupted"


def _asked(
    options: Any, planned: Any, candidate: Any, report: Mapping[str, Any], attempt: Path, problems: list[str]
) -> dict[str, Any]:
    """Return the options of the run: data, network, settings, recipe and the planned epochs."""
    data = _at(report, "dataset", "source") or _at(options, "data") or ""
    network = _at(report, "network", "name") or _at(candidate, "name") or ""
    # Fine-tuning keeps its own recipe beside its checkpoint; a head alone has none.
    own = _load(attempt / RECIPE, problems) or _at(planned, "recipe")
    recipe = _at(report, "training", "recipe") if _at(report, "training", "method") else own
    recipe = recipe if isinstance(recipe, Mapping) else {}
    epochs = next((value for key, value in flatten(recipe).items() if key.split(".")[-1] == "epochs"), None)
    settings = {
        "data": data,
        "network": network,
        "weights": _at(candidate, "weights"),
        "method": _at(report, "training", "method") or _at(planned, "strategy"),
        "preprocess": _at(planned, "preprocess"),
    }
    return {
        "data": str(data),
        "network": str(network),
        "device": str(_at(report, "training", "device") or ""),
        "planned_epochs": epochs if isinstance(epochs, int) else None,
        "recipe": recipe,
        "settings": {key: value for key, value in settings.items() if value not in (None, "")},
    }


def _results(
    report: Mapping[str, Any], candidate: Any, history: Sequence[Mapping[str, Any]], recipe: Any
) -> dict[str, Any]:
    """Return the results of the run so far."""
    balanced = _at(report, "training", "balance", "method") or _at(recipe, "balance", "method")
    kind = "val_accuracy" if balanced in (None, "none") else "val_balanced_accuracy"
    scores = [finite(row.get(kind)) for row in history]
    best = max((s for s in scores if s is not None), default=None)
    top = None if best is None else scores.index(best) + 1
    best_epoch = _at(report, "training", "best_epoch")
    if not isinstance(best_epoch, int):
        best_epoch = top
    # If no epoch was better than the head, the head was kept.
    head, number = _at(report, "training", "head"), best_epoch if 0 < (best_epoch or 0) <= len(history) else top
    kept = head if head and not best_epoch else history[number - 1] if number else None
    speeds = [s for row in history if (s := finite(row.get("images_per_second"))) is not None]
    laps = [s for row in history if (s := finite(row.get("seconds"))) is not None]
    trained = finite(_at(report, "training", "seconds"))
    # Counts of the plan are exact; its other measurements are not of the trained file.
    figures = {key: _at(report, "measured", key) for key in _MEASURED} | {"ece": _at(report, "test", "sureness", "ece")}
    figures |= {key: _at(candidate, key) for key in ("params", "macs") if figures[key] is None}
    return {
        "epochs": len(history),
        "best_epoch": best_epoch or None,
        "val_accuracy": finite(_at(kept, "val_accuracy")),
        "val_balanced_accuracy": finite(_at(kept, "val_balanced_accuracy")),
        "test_accuracy": finite(_at(report, "test_accuracy")),
        "test_balanced_accuracy": finite(_at(report, "test_balanced_accuracy")),
        "images_per_second": median(speeds) if speeds else None,
        "seconds": trained if trained is not None else (sum(laps) if laps else None),
        "measured": {key: value for key, value in figures.items() if finite(value) is not None},
    }


def finite(value: Any) -> float | None:
    """Return a finite number unchanged, and None for anything else."""
    # Compared, because math.isfinite cannot take an integer of a thousand digits.
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
    return value if good else None
