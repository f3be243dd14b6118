"""Images and texts in one space: the answer to an image is a vector, near those of the texts that describe it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.data.captions import CAPTIONS
from effnet.errors import BundleError
from effnet.tasks.task import Figure, Output, Task


def check_vectors(rows: np.ndarray, path: Path) -> None:
    """Raise BundleError unless float32 [batch, outputs] holds finite numbers."""
    if not np.isfinite(rows).all():
        raise BundleError(f"{path} must return finite vectors: it is damaged. `effnet export` writes it again")


def to_vector(row: np.ndarray, names: Sequence[str], *, top: int, threshold: float) -> np.ndarray:
    """Return the vector of one image, float32 [outputs] of length 1; all zeros stay zeros."""
    # In float64, as squares of large numbers would overflow.
    length = np.linalg.norm(row.astype(np.float64))
    vector: np.ndarray = (row / (length or 1.0)).astype(np.float32)
    return vector


EMBEDDING = Output(
    name="embedding",
    activation="none",
    meaning="a vector in the space of the words, not of length 1",
    titled="an image encoder",
)

TASK = Task(
    name="embedding",
    title="images and words",
    labels=CAPTIONS,
    output=EMBEDDING,
    figure=Figure(key="recall_at_10", title="R@10"),
    check=check_vectors,
    answer=to_vector,
    learning="effnet.training.words.learning",
    scoring="effnet.measurement.retrieval",
    reporting="effnet.report.retrieval",
)
