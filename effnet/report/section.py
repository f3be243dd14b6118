"""A task's part of the report and of the model card, as its module `reporting` gives it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from effnet.report.model import Report
from effnet.tasks.registry import find_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A template that extends report.html.j2 or card.md.j2 and fills its blocks, and a function that gives its values.

    `template` is its name below effnet/report/templates, or its text as {name: text} if it is no file of effnet's. The
    function takes the images of the mistakes of the score, uint8 [H, W, C], or none. A template prints a plot,
    a function that returns SVG, as `drawn(plot)`, which is empty in a report without plots.
    """

    template: str | Mapping[str, str]
    values: Callable[[Iterable[np.ndarray]], dict[str, Any]] = lambda images: {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A task's part of report.html and of the model card.

    `sentence` completes "The network ... the N test images" in the first sentence; `title`, `value` and `notes` are its
    figure, on top of the page. `lines` are the sentences of the section "Test", in both. `names` says what the names of
    the last layer's outputs are, `limit` what the model cannot do; `code` prints the answer from `outputs`, the output
    of an image, in the card's example. `tag` is the hub's pipeline tag, `metrics` are its names of the figures. `page`
    and `card` are the templates of a task that says more than this.
    """

    sentence: str
    title: str
    value: str
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    names: str = "Outputs"
    limit: str
    code: str = ""
    tag: str
    metrics: tuple[str, ...] = ()
    page: Extension = Extension(template="report.html.j2")
    card: Extension = Extension(template="card.md.j2")


class Reporting(Protocol):
    """The module `reporting` of a task."""

    def section(self, report: Report) -> Section:
        """Return the task's part of a report, whose `test` is a score of the task."""
        ...


def section_of(report: Report) -> Section:
    """Return the task's part of a report."""
    return cast(Reporting, find_task(report.task).module("reporting")).section(report)
