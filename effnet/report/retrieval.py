"""Retrieval's part of a report: how often captions are found."""

from effnet.report.cards.words import retrieval_sentence
from effnet.report.model import Report
from effnet.report.section import Section
from effnet.system.text import percent


def section(report: Report) -> Section:
    """Return the part of the report of an image encoder that words were aligned with."""
    test = report.test
    return Section(
        sentence=f"finds the own caption among the ten nearest for {percent(test.recall_at_10, 1)} of",
        title="R@10",
        value=percent(test.recall_at_10, 1),
        lines=(retrieval_sentence(test),),
        names="Numbers of a vector",
        limit="It knows the domain of its captions.",
        code="print(outputs[0] / (outputs[0] ** 2).sum() ** 0.5)",
        tag="image-feature-extraction",
    )
