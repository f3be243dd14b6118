"""Random numbers that depend only on seed, step and an image's place, not on earlier draws."""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The random numbers of one step for one `purpose`; no other random state is touched."""

    seed: int
    step: int
    purpose: str

    def generator(self, *more: int) -> np.random.Generator:
        """Return a fresh generator; the numbers `more` distinguish several of one step."""
        return np.random.default_rng([self.seed, self.step, zlib.crc32(self.purpose.encode()), *more])

    def once(self) -> float:
        """Return one number in 0..1 for the whole step."""
        return float(self.generator(0).random())

    def rows(self, size: int, columns: int, *, first: int = 0) -> np.ndarray:
        """Return float64 [size, columns] in 0..1, 1 excluded: a row per image, from the step's image `first` on.

        An image gets the same row however the step is divided.
        """
        generator = self.generator(1)
        generator.bit_generator.advance(first * columns)  # type: ignore[attr-defined]  # one 64-bit draw per number
        return generator.random((size, columns))
