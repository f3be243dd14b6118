"""The space of an aligned bundle: vectors of texts that its image embeddings are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import InputError
from effnet.runtimes.results import unit_rows
from effnet.system.text import brief
from effnet.words.encoder import Encoded, Encoder

TEMPLATES = ("{}", "a photo of a {}")
"""The texts made of a class name by default."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """The space of texts: the encoder's vectors minus `mean` [width], times `matrix` [width, width], of length 1.

    All captions of a domain have much in common, which the mean removes; the matrix gives rare words more weight
    (regularised whitening). Both are those of the captions that a bundle was aligned with.
    """

    encoder: Encoder
    mean: np.ndarray
    matrix: np.ndarray

    def vectors(self, texts: Sequence[str]) -> Encoded:
        """Return the vectors of texts, float32 [texts, width] of length 1; zeros for texts of no known word."""
        found = self.encoder.encode(texts)
        rows = unit_rows((found.vectors - self.mean) @ self.matrix)
        return Encoded(vectors=np.where(found.known[:, None], rows, np.float32(0)), known=found.known)

    def one(self, text: str) -> np.ndarray:
        """Return the vector of a text, float32 [width]; raise InputError if no word of it is known."""
        found = self.vectors([text])
        if not found.known[0]:
            raise InputError(f"a text must have a word that the bundle's words know; got {brief(text)}")
        row: np.ndarray = found.vectors[0]
        return row


def whitening(rows: np.ndarray, *, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [width] and the matrix [width, width] that whiten `rows` [texts, width], float32.

    `strength` is added to each variance as a share of the mean one, and 0 whitens fully; at infinity the matrix is the
    identity.
    """
    exact = rows.astype(np.float64)
    mean = exact.mean(0)
    if np.isinf(strength):
        return mean.astype(np.float32), np.eye(rows.shape[1], dtype=np.float32)
    values, axes = np.linalg.eigh(np.cov(exact.T, bias=True).reshape(len(mean), len(mean)))
    # A floor for tables whose vectors do not fill their space.
    spread = np.maximum(values, 0) + max(strength * values.mean(), 1e-12)
    matrix = (axes / np.sqrt(spread / spread.mean())) @ axes.T
    return mean.astype(np.float32), matrix.astype(np.float32)


def class_vectors(
    space: Space, classes: Mapping[str, Sequence[str]], *, templates: Sequence[str] = TEMPLATES
) -> np.ndarray:
    """Return a vector for each class, float32 [classes, width]: the mean of those of its texts, of length 1.

    `classes` maps a name to the texts that describe it, none for the name alone, put into each of the `templates`.
    Source: Radford et al. 2021, "Learning transferable visual models", section 3.1.4. Raises InputError for a class of
    which no word is known, and for two whose vectors are equal.
    """
    rows = []
    for name, texts in classes.items():
        found = space.vectors(list(texts) or [template.replace("{}", name) for template in templates])
        bare = space.encoder.encode([name]) if not texts else found
        mean = found.vectors[found.known].sum(0)
        if not bare.known.any() or not mean.any():
            raise InputError(
                f"a class must have a word that the bundle's words know; {brief(name)} has none: rename it"
            )
        rows.append(mean)
    vectors = unit_rows(np.stack(rows))
    alike = np.argwhere(np.triu(vectors @ vectors.T, 1) > 1 - 1e-6)
    if len(alike):
        names = list(classes)
        first, second = (brief(names[place]) for place in alike[0])
        raise InputError(f"classes must differ in their words; {first} and {second} have the same vector: rename one")
    return vectors
