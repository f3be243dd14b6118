"""The base of all engines: it checks a model's input and output, the images, and the result of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from effnet.bundle.model_file import reason
from effnet.errors import BundleError, InputError

Shape = Sequence[object]
"""The sides of a tensor; a side that is not an integer is dynamic."""


class Engine(Protocol):
    """An open model file. `side` and `channels` are those of its images, `classes` is the width of its output."""

    side: int
    channels: int
    classes: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes].

        Raises InputError for other images, BundleError if the runtime fails.
        """
        ...


class BaseEngine:
    """An open model file. `side` and `channels` are those of its images, `classes` is the width of its output.

    A subclass opens the file, calls `_set_signature` and implements `_compute`.
    """

    runtime = "the runtime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.side = self.channels = self.classes = 0

    def _set_signature(self, image: tuple[str, Shape], output: tuple[str, Shape], *, alone: bool = True) -> None:
        """Set side, channels and classes from the data types and shapes of the model's input and output.

        Raises BundleError unless they are uint8 [batch, side, side, channels] and float32 [batch, classes], and there
        is only one of each (`alone`).
        """
        (kind, given), (kind_out, given_out) = image, output
        shape: list[Any] = [*map(_plain, given)]
        shape_out: list[Any] = [*map(_plain, given_out)]
        sides = [*shape[1:], *shape_out[1:]]
        square = len(shape) == 4 and len(shape_out) == 2 and shape[1] == shape[2]
        whole = all(isinstance(side, int) and side > 0 for side in sides)
        if not (alone and square and whole and (kind, kind_out) == ("uint8", "float32")):
            raise BundleError(
                f"{self.path} must map image, uint8 [batch, side, side, channels], to one output, float32 "
                f"[batch, classes]; it maps {kind} {_short(shape)} to {kind_out} {_short(shape_out)}"
                f"{'' if alone else ', and has more inputs or outputs'}. `effnet export` writes it again"
            )
        self.side, self.channels, self.classes = shape[1], shape[3], shape_out[1]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes]; an empty batch gives an empty output.

        Raise InputError for other images, BundleError if the runtime fails or returns anything else.
        """
        wanted = (self.side, self.side, self.channels)
        # A runtime may accept another side without an error.
        if images.dtype != np.uint8 or images.shape[1:] != wanted or images.ndim != 4:
            raise InputError(
                f"the model takes uint8 [batch, {', '.join(map(str, wanted))}]; got {images.dtype} {images.shape}"
            )
        if not len(images):
            return np.empty((0, self.classes), np.float32)
        try:
            rows = self._compute(np.ascontiguousarray(images))
        except BundleError:
            raise
        except Exception as error:  # each runtime has its own exceptions
            raise BundleError(f"{self.runtime} cannot run {self.path}: {reason(error)}") from error
        if rows.dtype != np.float32 or rows.shape != (len(images), self.classes):
            raise BundleError(
                f"{self.path} must return float32 {[len(images), self.classes]}; it returned {rows.dtype} "
                f"{list(rows.shape)}. `effnet export` writes it again"
            )
        return rows

    def _compute(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def _plain(side: object) -> object:
    return int(side) if isinstance(side, int | np.integer) else side


def _short(shape: Shape) -> str:
    text = ", ".join(map(str, shape[:6]))
    return f"[{text[:80]}{', ...' if len(shape) > 6 else ''}]"
