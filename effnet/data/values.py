"""Finds the range of a data set's values, where its images have more than 8 bits."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.decode import image_header, stored_values
from effnet.data.deep import ORDINARY
from effnet.data.stored import Source, encoded, source_name
from effnet.data.value_range import ValueRange, is_real, loosely_in, number
from effnet.errors import DataError, ImageError

# So many training images are looked at, and of each so many values are kept to find quantiles.
_SAMPLE, _KEPT = 4096, 1024
# Scanners and sensors have these bits; 8 are what was stored with more bits than it has.
_BIT_DEPTHS = (8, 10, 12, 14, 16)
_REAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
# What lies outside of these is a few pixels: metal, padding, dead pixels.
_QUANTILES = (0.001, 0.999)
# Where nearly all values lie in this share of the range, the images show little.
_NARROW = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the values of a data set's images are and the range of those with more than 8 bits.

    `kinds` pairs each type with how many of the sampled training images have it; `least` and `most` are the extremes of
    those that are not ordinary, `reason` says why the range is this one, and `doubt` what speaks against it.
    """

    value_range: ValueRange
    kinds: tuple[tuple[str, int], ...]
    least: float
    most: float
    reason: str
    doubt: str = ""

    @property
    def sentences(self) -> list[str]:
        """What happens to the images, for a terminal and the report."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds)
        ordinary = " 8-bit images stay as they are." if ORDINARY in dict(self.kinds) else ""
        found = (
            f"Values of the images ({kinds}) from {self.value_range} become 0..255, {self.reason}: they lie in "
            f"{number(_rounded(self.least))}..{number(_rounded(self.most))}.{ordinary}"
        )
        return [found, self.doubt] if self.doubt else [found]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Look:
    kind: str
    least: float = 0.0
    most: float = 0.0
    some: np.ndarray | None = None


def with_values(dataset: Dataset, asked: ValueRange | None = None) -> tuple[Dataset, Values | None]:
    """Return the data set with the range of its values, and what was found; none where all images are ordinary.

    It is the one that was `asked` for or that a seeded sample of the training images shows. Raises DataError where some
    are whole and others real numbers, as no range suits both.
    """
    looks = _look_at_all(dataset)
    deep = [look for look in looks if look.some is not None and look.some.size]
    kinds = tuple(Counter(look.kind for look in looks).most_common())
    if not deep:
        return dataclasses.replace(dataset, value_range=asked), None
    least, most = min(look.least for look in deep), max(look.most for look in deep)
    values = np.concatenate([look.some for look in deep if look.some is not None])
    if asked is not None:
        found, reason = asked, "as --value-range asks"
    else:
        names = {look.kind for look in deep}
        if len({is_real(kind) for kind in names}) > 1:
            shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds if kind in names)
            raise DataError(
                f"images of more than 8 bits must all hold whole or all real numbers, these hold both ({shown}), and "
                "no range suits both; store them alike, or say with --value-range LOW,HIGH what is black and white"
            )
        found, reason = suited_range(values, (least, most), real=is_real(next(iter(names))))
    doubt = _doubt(values, found)
    report = Values(value_range=found, kinds=kinds, least=least, most=most, reason=reason, doubt=doubt)
    return dataclasses.replace(dataset, value_range=found), report


def suited_range(values: np.ndarray, extremes: tuple[float, float], *, real: bool) -> tuple[ValueRange, str]:
    """Return the range for images with these values, a sample [n], and these extremes, and why.

    It is a bit depth for whole numbers that are not negative, or a common range of real ones. For all others, such as
    Hounsfield units, it is all but one value in a thousand at either end.
    """
    least, most = extremes
    if not real and least >= 0 and most < 2 ** _BIT_DEPTHS[-1]:
        bits = next(bits for bits in _BIT_DEPTHS if most < 2**bits)
        return ValueRange(low=0, high=2**bits - 1), f"as for {bits} bits"
    if real:
        for low, high in _REAL_RANGES:
            if loosely_in(low, high, least, most):
                return ValueRange(low=low, high=high), "a common range of real numbers"
    low, high = (float(value) for value in np.quantile(values.astype(np.float64), _QUANTILES))
    low, high = (float(np.floor(low)), float(np.ceil(high))) if not real else (_rounded(low), _rounded(high))
    if not low < high:
        low, high = least, most if least < most else least + max(1.0, abs(least) / 2)
    return ValueRange(low=low, high=high), "all but one in a thousand at either end"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _doubt(values: np.ndarray, found: ValueRange) -> str:
    """Return a warning where nearly all values lie close together in the range, as a few far ones have set it."""
    low, high = (_rounded(float(value)) for value in np.quantile(values.astype(np.float64), _QUANTILES))
    low, high = max(low, found.low), min(high, found.high)
    if not 0 < high - low < _NARROW * (found.high - found.low):
        return ""
    return (
        f"WARNING: 99.8 % of the values lie in {number(low)}..{number(high)}, so the images show little; --value-range "
        f"{number(low)},{number(high)} would show more of them."
    )


def _look_at_all(dataset: Dataset) -> list[_Look]:
    """Return what a seeded sample of the training images holds; of data in blocks only of the first."""
    split = dataset.train
    places = np.random.default_rng(0).permutation(len(split))
    if split.blocks is not None:
        places = places[np.argsort(split.blocks.numbers[places], kind="stable")]
    sources = [split.sources[int(place)] for place in np.sort(places[:_SAMPLE])]
    if all(isinstance(source, np.ndarray) for source in sources):
        return []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [look for look in pool.map(_look_at, sources) if look is not None]


def _look_at(source: Source) -> _Look | None:
    if isinstance(source, np.ndarray):
        return _Look(kind=ORDINARY)
    try:
        file, name = encoded(source), source_name(source, "")
        kind = image_header(file, name=name).values
        if kind == ORDINARY:
            return _Look(kind=kind)
        return _summary(kind, stored_values(file, name=name))
    except (ImageError, OSError):  # inspection says so of all images
        return None


def _summary(kind: str, parts: Iterable[np.ndarray]) -> _Look:
    rng, extremes, some = np.random.default_rng(0), [], []
    for part in parts:
        flat = part.reshape(-1)
        if is_real(kind):
            flat = flat[np.isfinite(flat)]
        if not flat.size:
            continue
        extremes += [float(flat.min()), float(flat.max())]
        some.append(flat[rng.integers(0, flat.size, min(flat.size, _KEPT))])
    if not some:
        return _Look(kind=kind)
    kept = np.concatenate(some)
    if kept.size > _KEPT:
        kept = kept[rng.integers(0, kept.size, _KEPT)]
    return _Look(kind=kind, least=min(extremes), most=max(extremes), some=kept)
