"""The base of all engines: it checks a model's input and outputs, the images, and the result of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from effnet.bundle.model_file import reason
from effnet.errors import BundleError, InputError

Shape = Sequence[object]
"""The sides of a tensor; a side that is not an integer is dynamic."""


class FileOutput(NamedTuple):
    """One output of a model file: `name` is empty if the file names none."""

    name: str
    width: int


class Engine(Protocol):
    """An open model file. `side` and `channels` are those of its images, `classes` is the width of all `outputs`."""

    side: int
    channels: int
    classes: int
    outputs: tuple[FileOutput, ...]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes], the outputs one after the other.

        Raises InputError for other images, BundleError if the runtime fails.
        """
        ...


class BaseEngine:
    """An open model file. `side` and `channels` are those of its images, `classes` is the width of all `outputs`.

    A subclass opens the file, calls `_set_signature` and implements `_compute`.
    """

    runtime = "the runtime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.side = self.channels = self.classes = 0
        self.outputs: tuple[FileOutput, ...] = ()

    def _set_signature(
        self, image: tuple[str, Shape], *outputs: tuple[str, Shape], names: Sequence[str] = (), alone: bool = True
    ) -> None:
        """Set side, channels, classes and outputs from the data types and shapes of the model's input and outputs.

        `names` are those of the outputs, none if the file has none. Raises BundleError unless the input is uint8
        [batch, side, side, channels], the only one (`alone`), and each output is float32 [batch, classes].
        """
        (kind, given), kinds = image, [kind for kind, _ in outputs]
        shape: list[Any] = [*map(_plain, given)]
        shapes: list[list[Any]] = [[*map(_plain, sides)] for _, sides in outputs]
        square = len(shape) == 4 and shape[1] == shape[2] and all(len(sides) == 2 for sides in shapes)
        whole = all(isinstance(side, int) and side > 0 for sides in (shape, *shapes) for side in sides[1:])
        if not (alone and outputs and square and whole and kind == "uint8" and set(kinds) == {"float32"}):
            found = ", ".join(f"{kind} {_short(sides)}" for kind, sides in zip(kinds, shapes, strict=True))
            raise BundleError(
                f"{self.path} must map image, uint8 [batch, side, side, channels], to outputs that are float32 "
                f"[batch, classes]; it maps {kind} {_short(shape)} to {found[:400] or 'nothing'}"
                f"{'' if alone else ', and has more inputs'}. `effnet export` writes it again"
            )
        self.side, self.channels = shape[1], shape[3]
        names = names or ("",) * len(shapes)
        self.outputs = tuple(FileOutput(name, sides[1]) for name, sides in zip(names, shapes, strict=True))
        self.classes = sum(output.width for output in self.outputs)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, side, side, channels] to float32 [batch, classes], the outputs one after the other.

        An empty batch gives no rows. Raise InputError for other images, BundleError if the runtime fails or returns
        anything else.
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


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows of several outputs as one array [batch, classes]."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _plain(side: object) -> object:
    return int(side) if isinstance(side, int | np.integer) else side


def _short(shape: Shape) -> str:
    text = ", ".join(map(str, shape[:6]))
    return f"[{text[:80]}{', ...' if len(shape) > 6 else ''}]"
