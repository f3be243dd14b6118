"""Where a detector looked for a box: how its score falls as parts of the image are covered; torch-free.

Source: Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2 (occlusion).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from effnet.arch.decoders.record import Detector
from effnet.bundle.config import ModelConfig
from effnet.measurement.detection.matching import overlaps
from effnet.tasks.boxes.candidates import Decode, detect
from effnet.tasks.boxes.whole import LEAST_SCORE, decoder_of
from effnet.tasks.task import parted

# The longer side of an image has this many tiles; a square of two by two is covered at a time.
_TILES, _TOGETHER = 16, 16
# A box is the same one while half of it is; below this share of its score it counts as lost.
_SAME, _LOST = 0.5, 0.01
# A class that is requested is explained however low its score is.
_LEAST = 1e-4

Run = Callable[[np.ndarray], np.ndarray]
"""From prepared images, uint8 [batch, height, width, channels], to the rows of a file, float32 [batch, columns]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """The most certain box of an image, in pixels of the network's input, its class and score, and its map.

    `map` [rows, columns] is what the score loses, on average, if a place is covered; below 0 where it gains.
    """

    box: tuple[float, float, float, float]
    label: int
    score: float
    map: np.ndarray


def tiles_of(size: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of a map for an input of this height and width."""
    tile = _tile(size)
    return math.ceil(size[0] / tile), math.ceil(size[1] / tile)


def _tile(size: tuple[int, int]) -> int:
    return math.ceil(max(size) / _TILES)


def where_it_looked(run: Run, image: np.ndarray, config: ModelConfig, *, label: int | None = None) -> Looked | None:
    """Return the most certain box of a prepared image, of the class `label` if one is named, and where it was seen.

    None if no object is above the bundle's threshold; of a named class there is one nearly always.
    """
    decoder = config.arch.decoder
    assert isinstance(decoder, Detector)
    decode = decoder_of(decoder, config.preprocess.size)
    least = LEAST_SCORE if config.threshold is None else max(config.threshold, _LEAST)
    (boxes,), (logits,) = _outputs(run, image[None], config)
    found = detect(boxes, logits, decode, threshold=least if label is None else _LEAST)
    places = range(len(found)) if label is None else np.flatnonzero(found.classes == label).tolist()
    if not len(places):
        return None
    best = max(places, key=lambda place: found.scores[place])
    box, number, score = found.boxes[best].astype(np.float64), int(found.classes[best]), float(found.scores[best])
    total, count = (np.zeros(tiles_of(config.preprocess.size)) for _ in range(2))
    windows = list(_windows(config.preprocess.size))
    for first in range(0, len(windows), _TOGETHER):
        some = windows[first : first + _TOGETHER]
        covered = np.stack([_covered(image, window, _tile(config.preprocess.size)) for window in some])
        for window, raw, values in zip(some, *_outputs(run, covered, config), strict=True):
            total[window] += score - _score_of(box, raw, values[:, number], decode, base=score)
            count[window] += 1
    left, top, right, bottom = box.tolist()
    return Looked(box=(left, top, right, bottom), label=number, score=score, map=total / count)


def _outputs(run: Run, images: np.ndarray, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw boxes [batch, places, 4] and the logits [batch, places, classes]."""
    outputs = parted(run(images), config.file_outputs)
    return outputs["boxes"], outputs["scores"]


def _windows(size: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield every square of two by two tiles, by its rows and columns of tiles."""
    rows, columns = tiles_of(size)
    for row in range(max(1, rows - 1)):
        for column in range(max(1, columns - 1)):
            yield slice(row, row + 2), slice(column, column + 2)


def _covered(image: np.ndarray, window: tuple[slice, slice], tile: int) -> np.ndarray:
    """Return the image with its mean colour in a window."""
    found, (rows, columns) = image.copy(), window
    found[rows.start * tile : rows.stop * tile, columns.start * tile : columns.stop * tile] = image.mean((0, 1))
    return found


def _score_of(box: np.ndarray, raw: np.ndarray, logits: np.ndarray, decode: Decode, *, base: float) -> float:
    """Return the largest score of a box that is about this one, 0 if it is lost."""
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    places = np.flatnonzero(scores >= _LOST * base)
    same = overlaps(decode(raw[places], places).astype(np.float64), box[None], np.zeros(1, bool))[:, 0] >= _SAME
    return float(scores[places][same].max(initial=0.0))
