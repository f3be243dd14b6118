"""The base of all engines: it checks a model's input and outputs, the images, and the result of a run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from effnet.bundle.model_file import reason
from effnet.errors import BundleError, InputError
from effnet.runtimes.maps import MAPS
from effnet.tasks.known import SCORE

Shape = Sequence[object]
"""The sides of a tensor; a side that is not an integer is dynamic."""


class FileOutput(NamedTuple):
    """One output of a model file, of this shape for one image: `name` is empty if the file names none."""

    name: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """The numbers for one image."""
        return math.prod(self.shape)


class Engine(Protocol):
    """An open model file. `size`, height and width, and `channels` are those of its images.

    `classes` is the width of all `outputs`. `maps` are the height and width of the activation maps that it returns
    too, None if it has none. `scored` says whether it returns how known each image is too (effnet.tasks.known).
    """

    size: tuple[int, int]
    channels: int
    classes: int
    outputs: tuple[FileOutput, ...]
    maps: tuple[int, int] | None
    scored: bool

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, height, width, channels] to float32 [batch, classes], the outputs one after the other.

        The numbers of an output of another shape than a row are flattened; if the file is `scored`, the score is one
        more column, the last. Raises InputError for other images, BundleError if the runtime fails.
        """
        ...

    def run_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `run` and the activation maps, float32 [batch, classes, height, width]."""
        ...

    def shrink_(self, images: np.ndarray) -> None:
        """Run images, and free what larger batches took, if the runtime keeps it."""
        ...


class BaseEngine:
    """An open model file. `size` and `channels` are those of its images, `classes` is the width of all `outputs`.

    A subclass opens the file, calls `_set_signature` and implements `_compute`; for a file with activation maps also
    `_compute_with_maps`.
    """

    runtime = "the runtime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size, self.channels, self.classes = (0, 0), 0, 0
        self.outputs: tuple[FileOutput, ...] = ()
        self.maps: tuple[int, int] | None = None
        self.scored = False

    def _set_signature(
        self,
        image: tuple[str, Shape],
        *outputs: tuple[str, Shape],
        names: Sequence[str] = (),
        alone: bool = True,
        maps_last: bool = False,
    ) -> None:
        """Set size, channels, classes and outputs from the data types and shapes of the model's input and outputs.

        `names` are those of the outputs, none if the file has none. Raises BundleError unless the input is uint8
        [batch, height, width, channels], the only one (`alone`), and each output is float32 [batch, ...]. The last of
        several outputs may be activation maps, by its name, [batch, classes, height, width] or, if `maps_last`,
        [batch, height, width, classes]; the last but these may be the score, by its name, [batch, 1].
        """
        maps = outputs[-1] if len(outputs) > 1 and names and names[-1] == MAPS else None
        if maps:
            outputs, names = outputs[:-1], names[:-1]
        if len(outputs) == 2 and names and names[-1] == SCORE and [*outputs[-1][1]][1:] == [1]:
            self.scored, outputs, names = outputs[-1][0] == "float32", outputs[:-1], names[:-1]
        (kind, given), kinds = image, [kind for kind, _ in outputs]
        shape: list[Any] = [*map(_plain, given)]
        shapes: list[list[Any]] = [[*map(_plain, sides)] for _, sides in outputs]
        fits = len(shape) == 4 and all(len(sides) > 1 for sides in shapes)
        whole = all(isinstance(side, int) and side > 0 for sides in (shape, *shapes) for side in sides[1:])
        if not (alone and outputs and fits and whole and kind == "uint8" and set(kinds) == {"float32"}):
            found = ", ".join(f"{kind} {_short(sides)}" for kind, sides in zip(kinds, shapes, strict=True))
            raise BundleError(
                f"{self.path} must map image, uint8 [batch, height, width, channels], to outputs that are "
                f"float32 [batch, ...]; it maps {kind} {_short(shape)} to {found[:400] or 'nothing'}"
                f"{'' if alone else ', and has more inputs'}. `effnet export` writes it again"
            )
        self.size, self.channels = (shape[1], shape[2]), shape[3]
        names = names or ("",) * len(shapes)
        self.outputs = tuple(FileOutput(name, tuple(sides[1:])) for name, sides in zip(names, shapes, strict=True))
        self.classes = sum(output.width for output in self.outputs)
        if maps:
            self.maps = self._map_sides(*maps, last=maps_last)

    def _map_sides(self, kind: str, shape: Shape, *, last: bool) -> tuple[int, int]:
        """Return height and width of the activation maps; raise BundleError if these are not one for each column."""
        sides: list[Any] = [*map(_plain, shape)][1:]
        found = sides if not last else sides[-1:] + sides[:-1]
        whole = len(found) == 3 and all(isinstance(side, int) and side > 0 for side in found)
        if not whole or found[0] != self.classes or kind != "float32":
            raise BundleError(
                f"{self.path} must return {MAPS} as float32 maps of its {self.classes} columns; it returns {kind} "
                f"{_short(shape)}. `effnet export` writes it again"
            )
        return found[1], found[2]

    def shrink_(self, images: np.ndarray) -> None:
        """Run images, and free what larger batches took; most runtimes keep nothing."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Map uint8 [batch, height, width, channels] to float32 [batch, classes], the outputs one after the other.

        If the file is `scored`, the score is one more column, the last. An empty batch gives no rows. Raise InputError
        for other images, BundleError if the runtime fails or returns anything else.
        """
        self._check_images(images)
        columns = self.classes + self.scored
        if not len(images):
            return np.empty((0, columns), np.float32)
        try:
            rows = self._compute(np.ascontiguousarray(images))
        except BundleError:
            raise
        except Exception as error:  # each runtime has its own exceptions
            raise BundleError(f"{self.runtime} cannot run {self.path}: {reason(error)}") from error
        self._check_result(rows, (len(images), columns))
        return rows

    def run_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `run` and the activation maps, float32 [batch, classes, height, width].

        Only for a file that has maps. Raises like `run`.
        """
        assert self.maps is not None
        self._check_images(images)
        columns = self.classes + self.scored
        if not len(images):
            return np.empty((0, columns), np.float32), np.empty((0, self.classes, *self.maps), np.float32)
        try:
            rows, maps = self._compute_with_maps(np.ascontiguousarray(images))
        except BundleError:
            raise
        except Exception as error:  # each runtime has its own exceptions
            raise BundleError(f"{self.runtime} cannot run {self.path}: {reason(error)}") from error
        self._check_result(rows, (len(images), columns))
        self._check_result(maps, (len(images), self.classes, *self.maps))
        return rows, maps

    def _check_images(self, images: np.ndarray) -> None:
        wanted = (*self.size, self.channels)
        # A runtime may accept another size without an error.
        if images.dtype != np.uint8 or images.shape[1:] != wanted or images.ndim != 4:
            raise InputError(
                f"the model takes uint8 [batch, {', '.join(map(str, wanted))}]; got {images.dtype} {images.shape}"
            )

    def _check_result(self, found: np.ndarray, shape: tuple[int, ...]) -> None:
        if found.dtype != np.float32 or found.shape != shape:
            raise BundleError(
                f"{self.path} must return float32 {list(shape)}; it returned {found.dtype} {list(found.shape)}. "
                "`effnet export` writes it again"
            )

    def _compute(self, images: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _compute_with_maps(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the outputs, [batch, ...] each, as the rows of one array [batch, classes]."""
    rows = [part if part.ndim == 2 else part.reshape(len(part), -1) for part in parts]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def _plain(side: object) -> object:
    return int(side) if isinstance(side, int | np.integer) else side


def _short(shape: Shape) -> str:
    text = ", ".join(map(str, shape[:6]))
    return f"[{text[:80]}{', ...' if len(shape) > 6 else ''}]"
