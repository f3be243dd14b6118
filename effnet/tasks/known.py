"""The score that says "unknown": how much an image looks like those of the classes; a higher one is more known.

A file of a classifier may return it beside the probabilities, as the output SCORE, float32 [batch, 1]. An image whose
score is below the threshold is of no known class. Without a score the largest probability decides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from effnet.errors import BundleError, shown
from effnet.tasks.task import Output

Method = Literal["probability", "energy", "react", "knn", "mahalanobis", "sum"]

SCORE = "known"
"""The name of the score among a file's outputs."""

SCORE_OUTPUT = Output(
    name=SCORE, activation="none", meaning="how known the image is: more is more", titled="an image classifier", width=1
)

TITLES: dict[Method, str] = {
    "probability": "the largest probability",
    "energy": "the energy of the logits",
    "react": "the energy with clipped features (ReAct)",
    "knn": "the similarity to the nearest training images (kNN)",
    "mahalanobis": "the Mahalanobis distance to the nearest class (MDS++)",
    "sum": "the sum of the log-odds of the largest probability, energy, kNN and MDS++",
}
"""All scores, the cheapest first, in words."""

SUMMED: tuple[Method, ...] = ("probability", "energy", "knn", "mahalanobis")
"""The scores whose sum is one, in the order of its weights."""

_KNN, _MAHALANOBIS = ("centre", "bank", "neighbours"), ("mean", "axes", "linear", "constant", "scale")
ARRAYS: dict[str, tuple[str, ...]] = {
    "energy": (),
    "react": ("clip",),
    "knn": _KNN,
    "mahalanobis": _MAHALANOBIS,
    "sum": (*_KNN, *_MAHALANOBIS, "weights", "offset"),
}
"""The arrays of each score but the largest probability: see effnet.measurement.known.scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownScore:
    """A score, and the threshold below which an image is unknown; None: never.

    `arrays` are its parameters by the names of ARRAYS. They are in the model files already: only the export of another
    file needs them, so a bundle may lack them.
    """

    method: Method
    threshold: float | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.method not in ARRAYS:
            raise BundleError(f"the method of known must be one of {', '.join(ARRAYS)}; got {shown(self.method)}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BundleError(f"the threshold of known must be a finite number, or null; got {self.threshold}")

    @property
    def title(self) -> str:
        """The score in words."""
        return TITLES[self.method]

    @property
    def complete(self) -> bool:
        """Whether all of its arrays are present."""
        return set(self.arrays) == set(ARRAYS[self.method])

    def lost(self, result: str) -> str:
        """Return a sentence for a network whose features the score does not know; `result` names it."""
        return f"The {result} bundle has no score {self.method}: the largest probability says which images are unknown"

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json and the files' metadata hold."""
        return {"method": self.method, "threshold": self.threshold}

    def knows(self, score: float) -> bool:
        """Return whether an image of this score is of a known class."""
        return self.threshold is None or score >= self.threshold


def score_macs(score: KnownScore, *, classes: int, channels: int) -> int:
    """Return the multiply-accumulates that a score adds to an image's."""
    match score.method:
        case "react":
            return classes * channels
        case "knn":
            return int(score.arrays["bank"].size)
        case "mahalanobis":
            return int(score.arrays["axes"].size + score.arrays["linear"].size)
        case "sum":
            return sum(int(score.arrays[name].size) for name in ("bank", "axes", "linear"))
    return 0
