"""The report of a fit as a value: what report.json holds, and what pages, cards, plots and the terminal read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effnet.errors import BundleError, EffnetError
from effnet.measurement.budget import Budget
from effnet.measurement.classification.calibration import Calibration
from effnet.measurement.evaluate import Score, scoring_of
from effnet.measurement.known.choice import KnownChoice
from effnet.report.facts import (
    AttemptRow,
    CandidateRow,
    DataFacts,
    DeployedFacts,
    ExportFacts,
    LatencyFacts,
    Machine,
    Measured,
    NetworkFacts,
    TimeUse,
    TrainingFacts,
)
from effnet.report.search.searched import Searched
from effnet.system.files import read_json
from effnet.system.options import Given
from effnet.system.records import OPTIONAL, from_data, to_data
from effnet.system.text import reason_of
from effnet.tasks.registry import find_task

_TEST = "test_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A finished fit: its budget and verdict, the network, how it was chosen, trained and measured, on what and where.

    `task` is the name of the task, and `test` its score, of the class that its module `scoring` names; the file repeats
    the score's headline beside the task. `calibration` is None for a task without one. `honoured` is None if it is
    unknown whether the budget is met; `undecided` then says why. `time` is None if no minutes were given, `searched` if
    no search chose the network, `known` if none was to say which images are unknown. `options` are those of the job and
    the fields of the recipe that it set, changed ones first. `num_candidates` counts those that `candidates` leaves out
    as well. `report_images` is the number of test images in report.html.
    """

    honoured: bool | None
    budget: Budget
    measured: Measured
    task: str
    seconds: float
    failures: tuple[str, ...]
    undecided: str
    busy: tuple[str, ...]
    time: TimeUse | None
    command: str
    options: tuple[Given, ...]
    seed: int
    created: str
    dataset: DataFacts
    network: NetworkFacts
    candidates: tuple[CandidateRow, ...]
    num_candidates: int
    training: TrainingFacts
    calibration: Calibration | None
    test: Any
    report_images: int
    warnings: tuple[str, ...]
    export: ExportFacts
    deployed: DeployedFacts
    latency: LatencyFacts
    machine: Machine
    versions: Mapping[str, str]
    attempts: tuple[AttemptRow, ...]
    searched: Searched | None = field(default=None, metadata=OPTIONAL)
    known: KnownChoice | None = field(default=None, metadata=OPTIONAL)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of report.json; numbers that are not finite become None."""
        data: dict[str, Any] = {}
        for name, value in to_data(self).items():
            data[name] = value
            if name == "task":
                data |= self.headline
        return data

    def as_stored(self) -> "Report":
        """Return the report as its file holds it: text is valid UTF-8, and numbers that are not finite are NaN."""
        return Report.from_dict(self.to_dict())

    @property
    def headline(self) -> dict[str, Any]:
        """The first figures of the test by their keys in the file, such as test_accuracy."""
        score: Score = self.test
        return to_data({_TEST + name: value for name, value in score.headline.items()})

    @classmethod
    def from_dict(cls, data: Any) -> "Report":
        """Return the report that `to_dict` wrote; raise BundleError for anything else."""
        try:
            return _from_dict(data)
        except (ValueError, EffnetError) as error:
            raise BundleError(f"a report must be as effnet fit writes it; {error}: run effnet fit again") from error


def _from_dict(data: Any) -> Report:
    known = isinstance(data, Mapping)
    headline = {name: value for name, value in data.items() if name.startswith(_TEST)} if known else {}
    rest = {name: value for name, value in data.items() if name not in headline} if known else data
    found = from_data(Report, rest, where="the report")
    kind = scoring_of(find_task(found.task)).SCORE
    report = replace(found, test=from_data(kind, found.test, where="the report.test"))
    if missing := [name for name in report.headline if name not in headline]:
        raise ValueError(f"the report lacks {', '.join(missing)}")
    if headline != report.headline:
        raise ValueError(f"the report must repeat {report.headline} of its test; got {headline}")
    return report


def load_report(folder: Path) -> Report:
    """Return the report.json of a bundle; raise BundleError if it is missing or damaged."""
    path = folder / "report.json"
    try:
        data = read_json(path)
    except OSError as error:
        found = "none" if isinstance(error, FileNotFoundError) else f"none that can be read ({reason_of(error)})"
        raise BundleError(f"a bundle made by effnet fit has a report.json, but {folder} has {found}") from error
    except ValueError as error:
        reason = reason_of(error)
        raise BundleError(f"{path} must be JSON, but it cannot be read ({reason}); run effnet fit again") from error
    try:
        return Report.from_dict(data)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
