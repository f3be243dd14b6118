"""Near-duplicates: copies by their features (crops) and by their looks (grey, mirrored or saved again)."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effnet.data.datasets import Dataset, Split, loaded_image
from effnet.data.images.decode import Decoding
from effnet.data.inspection.alike import Look, alike_mirrored, look_at, look_reduction
from effnet.errors import ImageError
from effnet.measurement.neighbours import near_pairs, unit_features
from effnet.system.machine import usable_cores

Pair = tuple[int, int, float]


def copies(
    dataset: Dataset,
    places: Sequence[tuple[Split, int]],
    features: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Pair], float]:
    """Return the pairs of near-duplicates (first, second, cosine), nearest first, and the least cosine of features.

    `places` are the split and index of each image. Pairs of equal looks are below that cosine, if they are.
    """
    pairs, limit = near_pairs(features)
    known = {(one, other) for one, other, _ in pairs}
    numbers, looks, mirrored = _looks(dataset, places, progress=progress)
    if len(looks) > 1:
        rows = unit_features(features)
        found = [(numbers[one], numbers[other]) for one, other in alike_mirrored(looks, mirrored)]
        pairs += [(one, other, float(rows[one] @ rows[other])) for one, other in found if (one, other) not in known]
    return sorted(pairs, key=lambda pair: -pair[2]), limit


def _looks(
    dataset: Dataset, places: Sequence[tuple[Split, int]], *, progress: Callable[[int, int], None] | None
) -> tuple[list[int], list[Look], list[Look]]:
    """Return the numbers of the images that have a look, their looks, and those of the mirrored images."""
    if dataset.sound is not None:  # the spectrograms of two steady sounds look alike
        return [], [], []
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
