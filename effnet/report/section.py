"""The part of a report that says how well a task other than classification is solved; its module `reporting` gives it.

The pages' own part is that of classification.
"""

from dataclasses import dataclass
from typing import Protocol, cast

from effnet.report.model import Report
from effnet.tasks.registry import find_task
from effnet.tasks.task import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A task's part of report.html and of the model card.

    `sentence` completes "The network ... on N test images" in the first sentence, `title` and `value` are its figure.
    `lines` are the sentences below, in both. `output` is that of the task, `limit` says what the model cannot do,
    `code` prints the answer from `outputs`, the output of an image, in the card's example. `tag` is the hub's pipeline
    tag, `metrics` are its names of the figures.
    """

    sentence: str
    title: str
    value: str
    lines: tuple[str, ...]
    output: Output
    limit: str
    code: str
    tag: str
    metrics: tuple[str, ...] = ()


class Reporting(Protocol):
    """The module `reporting` of a task."""

    def section(self, report: Report) -> Section:
        """Return the task's part of a report, whose `test` is a score of the task."""
        ...


def section_of(report: Report) -> Section | None:
    """Return the task's part of a report; None for classification, which is the pages' own."""
    task = find_task(report.task)
    return cast(Reporting, task.module("reporting")).section(report) if task.reporting else None
