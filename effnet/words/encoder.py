"""What turns texts into vectors: a table of words, a sentence encoder, or a trained text tower."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from effnet.runtimes.results import unit_rows
from effnet.words.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """Vectors of texts: float32 [texts, width] of length 1, all zeros for a text of which nothing is `known`.

    `known` is bool [texts].
    """

    vectors: np.ndarray
    known: np.ndarray


class Encoder(Protocol):
    """An encoder of texts; `width` is the length of its vectors."""

    width: int

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the vectors of texts."""
        ...


class Remembered:
    """An encoder that encodes each text once, for one that is slow."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.width = encoder, encoder.width
        self._rows: dict[str, tuple[np.ndarray, bool]] = {}

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the vectors of texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new:
            found = self.encoder.encode(new)
            self._rows |= zip(new, zip(found.vectors, found.known.tolist(), strict=True), strict=True)
        rows = [self._rows[text] for text in texts]
        vectors = np.stack([row for row, _ in rows]) if rows else np.empty((0, self.width), np.float32)
        return Encoded(vectors=vectors, known=np.array([known for _, known in rows], dtype=bool))


class Table:
    """A static table: a text's vector is the mean of its tokens' rows in `vectors` [tokens, width], of length 1."""

    def __init__(self, tokens: Tokens, vectors: np.ndarray) -> None:
        self.tokens, self.vectors, self.width = tokens, vectors, vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the mean vectors of texts."""
        rows = np.zeros((len(texts), self.width), np.float32)
        for place, numbers in enumerate(self.tokens.ids(texts)):
            if len(numbers):
                rows[place] = self.vectors[numbers].astype(np.float32).mean(0)
        rows = unit_rows(rows)
        return Encoded(vectors=rows, known=np.asarray(rows.any(1)))
