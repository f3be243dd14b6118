"""The accuracy at each level of a hierarchy of classes, whose parents' probabilities are sums; no torch."""

from dataclasses import dataclass

import numpy as np

from effnet.data.hierarchy import levels
from effnet.measurement.intervals import wilson
from effnet.system.text import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScore:
    """The accuracy at one level above the classes, 1 for the topmost, of `classes` at it; `confidence` is Wilson's."""

    level: int
    classes: int
    accuracy: float
    confidence: tuple[float, float]


def level_scores(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> tuple[LevelScore, ...]:
    """Return the score at each level of probabilities [images, classes]; none where no classes are joined."""
    found = []
    for level, at_level in enumerate(levels(class_names), 1):
        names = {name: number for number, name in enumerate(dict.fromkeys(at_level))}
        if len(names) == len(class_names):
            continue
        group = np.array([names[name] for name in at_level])
        summed = np.zeros((len(names), len(labels)))
        np.add.at(summed, group, np.asarray(probabilities, np.float64).T)
        right = int((summed.argmax(0) == group[labels]).sum())
        found.append(
            LevelScore(
                level=level,
                classes=len(names),
                accuracy=right / len(labels),
                confidence=wilson(right, len(labels)),
            )
        )
    return tuple(found)


def level_words(level: LevelScore) -> str:
    """Return the accuracy at a level in words."""
    low, high = map(percent, level.confidence)
    return f"accuracy {percent(level.accuracy)} ({low} to {high}) at level {level.level}, of {level.classes} classes"
