"""The use of unlabelled images as facts of a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.system.text import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """One student of a teacher's pseudo-labels, or why there was none.

    `passed` images have at least the confidence `threshold`, with which the share `precision` of `answers` on the
    validation images is right; `used` of them were learnt, `classes` counts them by class. `compared` is the paired
    comparison with the network before on the validation images, and `kept` its verdict; `sentence` says it.
    """

    threshold: float | None
    precision: float | None
    answers: int
    passed: int
    used: int
    classes: tuple[int, ...]
    epochs: int
    labelled_epochs: int
    compared: Mapping[str, Any] | None
    kept: bool
    sentence: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """The round in words."""
        if self.threshold is None or self.precision is None:
            return (self.sentence,)
        used = "" if self.used == self.passed else f", {self.used:,} of them, drawn at random, were learnt"
        return (
            f"{self.passed:,} pseudo-labels have a confidence of at least {self.threshold:.3f}: of {self.answers:,} "
            f"answers to validation images with as much {percent(self.precision)} are right{used}",
            self.sentence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledFacts:
    """The unlabelled images of `folder`: `images` of the `found` ones, sentences on them, and the rounds of training.

    `teacher` is a bundle that gave the first pseudo-labels, empty if the network itself did.
    """

    folder: str
    found: int
    images: int
    copies: Mapping[str, int]
    notes: tuple[str, ...]
    teacher: str
    rounds: tuple[RoundFacts, ...]

    @property
    def students(self) -> int:
        """The number of students that were kept."""
        return sum(found.kept for found in self.rounds)

    @property
    def used(self) -> int:
        """The number of pseudo-labels that the last kept student learnt; 0 if none was kept."""
        return next((found.used for found in reversed(self.rounds) if found.kept), 0)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything in words."""
        rounds = (sentence for found in self.rounds for sentence in found.sentences)
        return (*self.notes, *rounds)
