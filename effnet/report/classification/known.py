"""The score that says "unknown" in a report: the choice, the estimates, and what they mean."""

from collections.abc import Iterator
from typing import Any

from effnet.measurement.known.choice import KnownChoice
from effnet.report.model import Report
from effnet.report.text import integer
from effnet.tasks.known import TITLES

_MEANING = (
    "Each class was left out of the training images in turn, with a third of the others held out. The estimate is the "
    "share of pairs of a held-out image and an image of the class that was left out in which the score of the first is "
    "higher, the mean of the classes. Unknown images that look less like the classes than these do among themselves "
    "are easier to tell, those that look more alike are harder."
)


def known_values(report: Report) -> dict[str, Any]:
    """Return the values of a report's paragraphs on the score."""
    found = {"titles": TITLES, "by_score": report.test.answered.score if report.test.answered else ""}
    if report.known is None:
        return found
    return found | {"known_lines": list(_lines(report.known)), "known_meaning": _MEANING}


def _lines(known: KnownChoice) -> Iterator[str]:
    yield known.sentence
    if known.method != "probability" and not known.fallback:
        yield (
            f"The score is an output of the model file, to which it adds {integer(known.size_bytes)} bytes and "
            f"{integer(known.macs)} MACs."
        )
    if known.fallback:
        yield known.fallback
