"""Random numbers that depend on seed, step and an image's place alone, never on what was drawn before."""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The random numbers of one step for one `purpose`; no other randomness is touched."""

    seed: int
    step: int
    purpose: str

    def generator(self, *more: int) -> np.random.Generator:
        """Return a fresh generator; `more` numbers tell several of a step apart."""
        return np.random.default_rng([self.seed, self.step, zlib.crc32(self.purpose.encode()), *more])

    def once(self) -> float:
        """Return one number in 0..1 for the whole step."""
        return float(self.generator(0).random())

    def rows(self, size: int, columns: int, *, first: int = 0) -> np.ndarray:
        """Return float64 [size, columns] in 0..1, 1 excluded: a row an image, from the step's image `first` on.

        However a step's images are divided, each finds the same row.
        """
        generator = self.generator(1)
        generator.bit_generator.advance(first * columns)  # one draw of 64 bits a number
        return generator.random((size, columns))
