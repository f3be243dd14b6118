"""Near-duplicates: crops by their features and overlap, and copies by their looks (grey, mirrored or saved again)."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effnet.data.datasets import Dataset, Split, loaded_image
from effnet.data.images.decode import Decoding
from effnet.data.inspection.alike import Look, alike_mirrored, look_at, look_reduction
from effnet.errors import ImageError
from effnet.jobs.audit.overlap import overlap, small_grey
from effnet.measurement.neighbours import near_pairs, unit_features
from effnet.system.machine import usable_cores

Pair = tuple[int, int, float]

# The share of the images whose second nearest image may be examined: as many pairs, or somewhat more, are decoded.
_EXAMINED = 0.03
# Measured on photos7 and imagenette_mini: 98 % of 60 images each have a correlation of 0.91 or more with crops of 60 to
# 90 % of their sides; 22 pairs of different images with the nearest features have at most 0.84, 120 pairs at random at
# most 0.86.
_LEAST_OVERLAP = 0.88


def copies(
    dataset: Dataset,
    places: Sequence[tuple[Split, int]],
    features: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Pair], float]:
    """Return the pairs of near-duplicates (first, second, cosine), nearest first, and the least cosine of features.

    Pairs of features above it are near-duplicates if one image shows a part of the other; those of equal looks are also
    if they are below. `places` are the split and index of each image. Two sounds need only near features.
    """
    if dataset.sound is not None:
        return near_pairs(features)
    pairs, limit = near_pairs(features, share=_EXAMINED)
    pairs = _overlapping(dataset, places, pairs)
    known = {(one, other) for one, other, _ in pairs}
    numbers, looks, mirrored = _looks(dataset, places, progress=progress)
    if len(looks) > 1:
        rows = unit_features(features)
        found = [(numbers[one], numbers[other]) for one, other in alike_mirrored(looks, mirrored)]
        pairs += [(one, other, float(rows[one] @ rows[other])) for one, other in found if (one, other) not in known]
    return sorted(pairs, key=lambda pair: -pair[2]), limit


def _overlapping(dataset: Dataset, places: Sequence[tuple[Split, int]], pairs: list[Pair]) -> list[Pair]:
    """Return the pairs of which one image shows a part of the other."""
    decoding = dataclasses.replace(dataset.decoding, reduce=look_reduction)

    @functools.cache
    def small(number: int) -> np.ndarray | None:
        split, index = places[number]
        try:
            with loaded_image(split, index, decoding) as pixels:
                return small_grey(pixels)
        except ImageError:
            return None

    def overlaps(pair: Pair) -> bool:
        one, other = small(pair[0]), small(pair[1])
        return one is not None and other is not None and overlap(one, other) >= _LEAST_OVERLAP

    with ThreadPoolExecutor(usable_cores()) as pool:
        return [pair for pair, kept in zip(pairs, pool.map(overlaps, pairs), strict=True) if kept]


def _looks(
    dataset: Dataset, places: Sequence[tuple[Split, int]], *, progress: Callable[[int, int], None] | None
) -> tuple[list[int], list[Look], list[Look]]:
    """Return the numbers of the images that have a look, their looks, and those of the mirrored images."""
    decoding = dataclasses.replace(dataset.decoding, reduce=look_reduction)
    found: list[tuple[int, Look, Look]] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for number, both in enumerate(pool.map(lambda place: _both(*place, decoding), places)):
            if both is not None:
                found.append((number, *both))
            if progress is not None:
                progress(number + 1, len(places))
    numbers, looks, mirrored = ([row[column] for row in found] for column in range(3))
    return numbers, looks, mirrored  # type: ignore[return-value]


def _both(split: Split, index: int, decoding: Decoding) -> tuple[Look, Look] | None:
    try:
        with loaded_image(split, index, decoding) as pixels:
            look, mirrored = look_at(pixels), look_at(pixels[:, ::-1])
    except ImageError:
        return None
    return None if look is None or mirrored is None else (look, mirrored)
