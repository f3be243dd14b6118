"""The use of unlabelled images as facts of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from effnet.system.records import OPTIONAL
from effnet.system.text import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """One student of a teacher's pseudo-labels, or why there was none.

    `passed` images have at least the confidence `threshold`, with which the share `precision` of `answers` on the
    validation images is right; `used` of them were learnt, `classes` counts them by class. `compared` is the paired
    comparison with the network before on the validation images, and `kept` its verdict; `sentence` says it.

    FreeMatch has no `precision`. Its `used` images had `seen` weak views in the last epoch, of which `passed` had at
    least the threshold of their class; `thresholds` are those at the end, and `threshold` is that of all classes.
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
    thresholds: tuple[float, ...] = field(default=(), metadata=OPTIONAL)
    seen: int = field(default=0, metadata=OPTIONAL)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The round in words."""
        if self.threshold is None:
            return (self.sentence,)
        if self.precision is None:
            low, high = min(self.thresholds), max(self.thresholds)
            return (
                f"FreeMatch learnt from {self.used:,} unlabelled images: in the last epoch {self.passed:,} of "
                f"{self.seen:,} answers passed the threshold of their class, at the end {low:.3f} to {high:.3f}",
                self.sentence,
            )
        used = "" if self.used == self.passed else f", {self.used:,} of them, drawn at random, were learnt"
        return (
            f"{self.passed:,} pseudo-labels have a confidence of at least {self.threshold:.3f}: of {self.answers:,} "
            f"answers to validation images with as much {percent(self.precision)} are right{used}",
            self.sentence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledFacts:
    """The unlabelled images of `folder`: `images` of the `found` ones, sentences on them, and the rounds of training.

    `method` is noisy_student or freematch. `teacher` is a bundle that gave the first pseudo-labels, empty if the
    network itself did.
    """

    folder: str
    found: int
    images: int
    copies: Mapping[str, int]
    notes: tuple[str, ...]
    teacher: str
    rounds: tuple[RoundFacts, ...]
    method: str = field(default="noisy_student", metadata=OPTIONAL)

    @property
    def students(self) -> int:
        """The number of students that were kept."""
        return sum(found.kept for found in self.rounds)

    @property
    def used(self) -> int:
        """The number of pseudo-labels (FreeMatch: images) that the last kept student learnt; 0 if none was kept."""
        return next((found.used for found in reversed(self.rounds) if found.kept), 0)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything in words."""
        rounds = (sentence for found in self.rounds for sentence in found.sentences)
        return (*self.notes, *rounds)
