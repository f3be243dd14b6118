"""A trained text tower, computed with numpy: a transformer that turns the tokens of a text into one vector.

effnet.training.words.towers trains the same function with torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.errors import WeightsError
from effnet.runtimes.results import unit_rows
from effnet.words.encoder import Encoded
from effnet.words.tokens import Tokens

HEADS = "heads"
EPSILON = 1e-5
_TOGETHER = 64


class Tower:
    """A text tower of these `arrays`, keyed by the names of its torch module; `heads` is that of its attention."""

    def __init__(self, tokens: Tokens, arrays: Mapping[str, np.ndarray], *, heads: int) -> None:
        self.tokens, self.arrays, self.heads = tokens, arrays, heads
        try:
            self.width = len(arrays["project.weight"])
            self._most = len(arrays["place"])
            channels = arrays["embed.weight"].shape[1]
            self._layers = sum(name.endswith(".attend.weight") for name in arrays)
            if heads < 1 or channels % heads or len(arrays["embed.weight"]) < tokens.size:
                raise ValueError("its shapes do not fit its tokens and heads")
            self._run([np.zeros(1, np.int64)])
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise WeightsError(
                f"the text tower must have the arrays that effnet writes; {error}: copy it again"
            ) from error

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the vectors of texts; those of a similar length are computed together."""
        numbers = [row[: self._most] for row in self.tokens.ids(texts)]
        known = np.array([len(row) > 0 for row in numbers], dtype=bool)
        rows = np.zeros((len(texts), self.width), np.float32)
        order = sorted(np.flatnonzero(known).tolist(), key=lambda place: len(numbers[place]))
        for start in range(0, len(order), _TOGETHER):
            chunk = order[start : start + _TOGETHER]
            rows[chunk] = self._run([numbers[place] for place in chunk])
        return Encoded(vectors=unit_rows(rows), known=known)

    def _run(self, numbers: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32 [texts, width] for the tokens of each text."""
        longest = max(map(len, numbers))
        ids, mask = np.zeros((len(numbers), longest), np.int64), np.zeros((len(numbers), longest), np.float32)
        for place, row in enumerate(numbers):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        x = self.arrays["embed.weight"][ids] + self.arrays["place"][:longest]
        for layer in range(self._layers):
            x = x + self._attend(self._norm(x, f"layers.{layer}.norm1"), mask, f"layers.{layer}")
            hidden = _gelu(self._linear(self._norm(x, f"layers.{layer}.norm2"), f"layers.{layer}.widen"))
            x = x + self._linear(hidden, f"layers.{layer}.narrow")
        x = self._norm(x, "norm")
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean @ self.arrays["project.weight"].T

    def _attend(self, x: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
        count, length, channels = x.shape
        parts = self._linear(x, f"{name}.attend").reshape(count, length, 3, self.heads, channels // self.heads)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(channels // self.heads)
        scores = np.where(mask[:, None, None] > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ value
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(count, length, channels), f"{name}.merge")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = x.mean(-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + EPSILON)
        return scaled * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return the tanh approximation of GELU. Source: Hendrycks & Gimpel 2016, section 2."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
