"""Split texts into the tokens of a table or an encoder."""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from effnet.errors import MissingExtraError, WeightsError
from effnet.system.text import brief

_WORD = re.compile(r"\w+|[^\w\s]")
# Tokens that stand for a byte, for nothing known, or for a space alone say nothing about a text.
_EMPTY = re.compile(r"<0x[0-9A-Fa-f]{2}>|\[UNK\]|<unk>|\[PAD\]|<pad>|[\s▁Ġ]*")


class Tokens(Protocol):
    """A tokenizer; `size` is the number of its tokens."""

    size: int

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the numbers of the known tokens of each text, int64 [tokens]; none if all are unknown."""
        ...


class JsonTokens:
    """The tokenizer of a tokenizer.json, whose bytes are `data`, of the package `tokenizers`."""

    def __init__(self, data: bytes, *, where: object) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("tokenizers", "words") from error
        self.data = data
        try:
            self._tokenizer = Tokenizer.from_buffer(data)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        except Exception as error:  # the package's errors have no common class
            raise WeightsError(
                f"{where} must be a tokenizer.json of the package tokenizers: {brief(str(error))}"
            ) from error
        self.size = 1 + max(vocabulary.values(), default=-1)
        self._known = np.ones(self.size, dtype=bool)
        self._known[[number for token, number in vocabulary.items() if _EMPTY.fullmatch(token)]] = False

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the numbers of the known tokens, without those that a model adds around a text."""
        rows = self._numbers(texts, special=False)
        return [row[self._known[row]] for row in rows]

    def whole(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return all tokens of each text, int64 [tokens], as a sentence encoder takes them."""
        return self._numbers(texts, special=True)

    def _numbers(self, texts: Sequence[str], *, special: bool) -> list[np.ndarray]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [np.array(found.ids, dtype=np.int64) for found in encoded]


class WordTokens:
    """Whole words, in lower case unless the vocabulary has them as they are written."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.size = tuple(words), len(words)
        self._number: Mapping[str, int] = {word: number for number, word in reversed(list(enumerate(words)))}

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the numbers of the known words."""
        return [np.array(list(self._find(text)), dtype=np.int64) for text in texts]

    def _find(self, text: str) -> list[int]:
        found = []
        for word in split_words(text):
            number = self._number.get(word, self._number.get(word.lower()))
            if number is not None:
                found.append(number)
        return found


def split_words(text: str) -> list[str]:
    """Return the words and marks of a text."""
    return _WORD.findall(text)
