"""A sentence encoder as an ONNX file, with its tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.bundle.model_file import reason
from effnet.errors import BundleError, WeightsError
from effnet.runtimes.onnxruntime.session import open_session
from effnet.runtimes.results import unit_rows
from effnet.words.encoder import Encoded
from effnet.words.tokens import JsonTokens

# BERT's encoders know 512 places; of a caption the first words matter.
_MOST_TOKENS = 256
_TOGETHER = 32
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class Sentence:
    """A sentence encoder: its output [texts, width] or, of one vector for each token, their mean, of length 1."""

    def __init__(self, tokens: JsonTokens, path: Path, *, threads: int = 1) -> None:
        try:
            self._session = open_session(path, threads=threads)
        except BundleError as error:
            raise WeightsError(str(error)) from error
        self.tokens, self._path = tokens, path
        self._inputs = {found.name for found in self._session.get_inputs()}
        if not {"input_ids"} <= self._inputs <= _INPUTS:
            raise WeightsError(
                f"{path} must be a sentence encoder, whose inputs are among {', '.join(sorted(_INPUTS))}; its inputs "
                f"are {', '.join(sorted(self._inputs))[:80]}"
            )
        self._output = self._choose()
        self.width = self._run(["a"]).shape[1]

    def _choose(self) -> str:
        """Return the output to read: the first of two dimensions, else the first."""
        outputs = self._session.get_outputs()
        flat = [found.name for found in outputs if len(found.shape or ()) == 2]
        return (flat or [found.name for found in outputs])[0]

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the vectors of texts; those of a similar length are computed together."""
        rows = np.zeros((len(texts), self.width), np.float32)
        known = np.array([len(numbers) > 0 for numbers in self.tokens.ids(texts)], dtype=bool)
        order = sorted(np.flatnonzero(known).tolist(), key=lambda place: len(texts[place]))
        for start in range(0, len(order), _TOGETHER):
            chunk = order[start : start + _TOGETHER]
            rows[chunk] = self._run([texts[place] for place in chunk])
        return Encoded(vectors=unit_rows(rows), known=known)

    def _run(self, texts: Sequence[str]) -> np.ndarray:
        numbers = [row[:_MOST_TOKENS] for row in self.tokens.whole(texts)]
        longest = max(1, max(map(len, numbers)))
        ids, mask = np.zeros((2, len(texts), longest), np.int64)
        for place, row in enumerate(numbers):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        try:
            (rows,) = self._session.run([self._output], {name: feed[name] for name in self._inputs})
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise WeightsError(f"{self._path} cannot encode texts: {reason(error)}") from error
        if rows.ndim == 3:
            rows = (rows * mask[..., None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise WeightsError(f"{self._path} must return finite vectors [texts, width]; it does not")
        return np.asarray(rows, np.float32)
