"""The annotations of a data set in a report: the objects or pixels of each class by split, and what was irregular."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from effnet.data.annotated.masks.folder import MaskSet
from effnet.data.annotated.masks.labels import MASKS
from effnet.data.annotated.objects import OBJECTS, classes_in
from effnet.data.annotated.record import AnnotatedSet, Finding
from effnet.data.datasets import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFacts:
    """The annotations: `counts` of objects or pixels of each class by split, and the findings of their reader."""

    unit: Literal["objects", "pixels"]
    counts: Mapping[str, tuple[int, ...]]
    findings: tuple[Finding, ...]


def object_facts(found: AnnotatedSet, *more: Finding) -> AnnotationFacts:
    """Return the facts of a set with boxes; `more` are findings beside those of its reader, such as small objects."""
    return _facts("objects", found.counts(), (*found.findings, *more))


def pixel_facts(found: MaskSet, *more: Finding) -> AnnotationFacts:
    """Return the facts of a set with masks; ignored pixels do not count."""
    counts = {split: pixels[:-1] for split, pixels in found.counts.items()}
    return _facts("pixels", counts, (*found.findings, *more))


def facts_of(dataset: Dataset) -> AnnotationFacts | None:
    """Return the objects or pixels of each class by split; None for data of another task."""
    findings = dataset.listed.findings if dataset.listed else ()
    parts = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    number = len(dataset.class_names)
    if dataset.label_kind is OBJECTS:
        counts = {name: np.bincount(classes_in(part.labels), minlength=number) for name, part in parts.items()}
        return _facts("objects", counts, findings)
    if dataset.label_kind is MASKS:
        none = np.zeros(number, np.int64)
        counts = {name: sum((each.pixels[:-1] for each in part.labels), none) for name, part in parts.items()}
        return _facts("pixels", counts, findings)
    return None


def class_counts(facts: AnnotationFacts | None, number: int) -> dict[str, Any]:
    """Return the counts of `number` classes by split for a table: its `heads`, and `rows`, one of each class.

    A class without any in train, but in other splits, is in `unseen`, as its number.
    """
    if facts is None:
        return {"heads": [], "rows": [[] for _ in range(number)], "unseen": []}
    counts = np.array([facts.counts[split] for split in facts.counts], np.int64).reshape(len(facts.counts), -1)
    train = np.array(facts.counts.get("train", np.ones(counts.shape[1])))
    return {
        "heads": [f"#In {split}" if split else "#In all" for split in facts.counts],
        "rows": counts.T.tolist(),
        "unseen": np.flatnonzero((train == 0) & (counts.sum(0) > 0)).tolist(),
    }


def _facts(
    unit: Literal["objects", "pixels"], counts: Mapping[str, np.ndarray], findings: tuple[Finding, ...]
) -> AnnotationFacts:
    whole = {split: tuple(map(int, each)) for split, each in counts.items()}
    return AnnotationFacts(unit=unit, counts=whole, findings=findings)
