"""How well images and captions find each other: recall at 1 and at 10, among 500 pairs."""

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.errors import DataError
from effnet.measurement.answers import predict_split
from effnet.measurement.intervals import wilson
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.results import unit_rows
from effnet.words.kept import open_space

CANDIDATES = 500
"""Pairs among which an image finds its caption, as in the published figures of small sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalScore:
    """The retrieval of `images` pairs of an image and its caption, each among `candidates` of them.

    `recall_at_1` and `recall_at_10` are the shares of images whose own caption is the nearest, or among the ten
    nearest; `text_recall_at_10` is that of captions whose image is. `interval` is that of recall_at_10, 95 %.
    """

    images: int
    candidates: int
    recall_at_1: float
    recall_at_10: float
    text_recall_at_1: float
    text_recall_at_10: float
    interval: tuple[float, float]

    @property
    def figure(self) -> float:
        """R@10 of images."""
        return self.recall_at_10

    @property
    def headline(self) -> dict[str, float]:
        """The figures on top."""
        return {"recall_at_10": self.recall_at_10, "recall_at_1": self.recall_at_1}

    @property
    def mistakes(self) -> tuple[()]:
        """None: a page of wrong captions would show nothing."""
        return ()

    @property
    def chance(self) -> float:
        """R@10 of a random order."""
        return min(1.0, 10 / self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data."""
        return asdict(self)


SCORE = RetrievalScore


def ranks(images: np.ndarray, texts: np.ndarray, *, candidates: int = CANDIDATES) -> np.ndarray:
    """Return the rank of each image's own text, from 0, among the texts of its block of pairs: int64 [pairs].

    `images` and `texts` are float32 [pairs, width] of length 1. Blocks have `candidates` pairs in order; a last block
    of fewer is left out, unless it is the only one. Equal captions count as found.
    """
    size = min(candidates, len(images))
    found = []
    for start in range(0, len(images) - size + 1, size):
        part = slice(start, start + size)
        cosines = images[part] @ texts[part].T
        own = np.einsum("id,id->i", images[part], texts[part])
        # A text that equals the own one differs from it in the last digits.
        found.append((cosines > own[:, None] + 1e-6).sum(1))
    return np.concatenate(found)


def score(images: np.ndarray, texts: np.ndarray, *, candidates: int = CANDIDATES) -> RetrievalScore:
    """Return the retrieval score of pairs, float32 [pairs, width] each; raise DataError for fewer than two."""
    if len(images) < 2:
        raise DataError(f"retrieval needs at least 2 images with captions; got {len(images)}")
    images = unit_rows(images)
    of_images, of_texts = ranks(images, texts, candidates=candidates), ranks(texts, images, candidates=candidates)
    right = int((of_images < 10).sum())
    return RetrievalScore(
        images=len(of_images),
        candidates=min(candidates, len(images)),
        recall_at_1=float((of_images < 1).mean()),
        recall_at_10=float((of_images < 10).mean()),
        text_recall_at_1=float((of_texts < 1).mean()),
        text_recall_at_10=float((of_texts < 10).mean()),
        interval=wilson(right, len(of_images)),
    )


def evaluate_split(
    predictor: Predictor,
    split: Split,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> RetrievalScore:
    """Return the retrieval of a split's captions by an aligned bundle; captions of no known word are left out."""
    space, _ = open_space(predictor.folder)
    rows, indices = predict_split(predictor, split, progress=progress)
    found = space.vectors([str(split.labels[index]) for index in indices])
    return score(rows[found.known], found.vectors[found.known])


def warnings_about(score: RetrievalScore, dataset: Dataset, *, balanced: bool) -> list[str]:
    """Return a warning if captions are found hardly more often than at random."""
    if score.recall_at_10 < 2 * score.chance:
        return [f"Captions are hardly found: R@10 is {score.recall_at_10:.1%}, {score.chance:.1%} at random."]
    return []
