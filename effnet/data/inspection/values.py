"""Determine the value range of a data set with images of more than 8 bits."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.images.decode import Decoding, image_header, stored_values
from effnet.data.images.deep import ORDINARY
from effnet.data.sound.reading import DECIBELS
from effnet.data.sources.source import Source, encoded, source_name
from effnet.data.view.value_range import ValueRange, is_real, loosely_in, number
from effnet.errors import DataError, ImageError

# Training images sampled, and pixels kept of each to compute quantiles: fewer if there are more bands than a few.
_SAMPLE, _KEPT, _FEW_BANDS = 4096, 1024, 4
# Bit depths of scanners and sensors; 8 is for 8-bit images stored with more bits.
_BIT_DEPTHS = (8, 10, 12, 14, 16)
# Grey and colours have one range, so that a colour keeps its hue.
_COLOURS = (1, 3)
_REAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
# Values outside of these are a few pixels: metal, padding, dead pixels.
_QUANTILES = (0.001, 0.999)
# If nearly all values lie in this share of the range, the images have little contrast.
_NARROW = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """The value types of a data set's images, and the range of those with more than 8 bits.

    `kinds` pairs each type with the number of sampled training images that have it; `least` and `most` are the extremes
    of those with more than 8 bits, `reason` explains the choice of the range, and `doubt` is a warning against it.
    """

    value_range: ValueRange
    kinds: tuple[tuple[str, int], ...]
    least: float
    most: float
    reason: str
    doubt: str = ""

    @property
    def sentences(self) -> list[str]:
        """The conversion of the images in sentences, for a terminal and the report."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds)
        ordinary = " 8-bit images are unchanged." if ORDINARY in dict(self.kinds) else ""
        found = (
            f"Values of the images ({kinds}) from {self.value_range} are mapped to 0..255, {self.reason}: they lie in "
            f"{number(_rounded(self.least))}..{number(_rounded(self.most))}.{ordinary}"
        )
        return [found, self.doubt] if self.doubt else [found]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Look:
    kind: str
    least: float = 0.0
    most: float = 0.0
    some: np.ndarray | None = None
    window: tuple[float, float] | None = None


def with_values(dataset: Dataset, asked: ValueRange | Literal["window"] | None = None) -> tuple[Dataset, Values | None]:
    """Return the data set with its value range, and the findings, or None if all images have 8 bits.

    The range is `asked`, or determined from a seeded sample of the training images: one for all channels or, if that
    would leave a band with little contrast, one for each. With "window", it is each DICOM file's own, and the median of
    these for files without one. Raises DataError if some images hold integers and others real numbers, as no range
    suits both, and if no file has a window.
    """
    looks = _look_at_all(dataset)
    deep = [look for look in looks if look.some is not None and look.some.size]
    kinds = tuple(Counter(look.kind for look in looks).most_common())
    if not deep:
        if asked == "window":
            raise DataError(f"value_range window is for DICOM files of more than 8 bits; {dataset.name} has none")
        return dataclasses.replace(dataset, value_range=asked), None
    least, most = min(look.least for look in deep), max(look.most for look in deep)
    values = np.concatenate([look.some.reshape(-1) for look in deep if look.some is not None])
    if asked == "window":
        found, reason = _median_window(deep), "each file's own window, or the median one for files without"
    elif asked is not None:
        found, reason = asked, "as set by value_range"
    else:
        names = {look.kind for look in deep}
        if len({is_real(kind) for kind in names}) > 1:
            shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds if kind in names)
            raise DataError(
                f"images of more than 8 bits must all hold integers or all real numbers; these hold both ({shown}), "
                "and no range suits both: store them alike, or give black and white with --set fit.value_range=LOW,HIGH"
            )
        found, reason = suited_range(values, (least, most), real=is_real(next(iter(names))))
        if dataset.channels not in _COLOURS:
            found, reason = _by_channel(deep, dataset.channels, found, reason, real=is_real(next(iter(names))))
    doubt = "" if found.channels or found.window else _doubt(values, found)
    report = Values(value_range=found, kinds=kinds, least=least, most=most, reason=reason, doubt=doubt)
    return dataclasses.replace(dataset, value_range=found), report


def suited_range(values: np.ndarray, extremes: tuple[float, float], *, real: bool) -> tuple[ValueRange, str]:
    """Return the range for images with these values, a sample [n], and these extremes, and the reason.

    It is a bit depth for non-negative integers, or a common range of real numbers. For all others, such as Hounsfield
    units, it excludes one value in a thousand at either end.
    """
    least, most = extremes
    if not real and least >= 0 and most < 2 ** _BIT_DEPTHS[-1]:
        bits = next(bits for bits in _BIT_DEPTHS if most < 2**bits)
        return ValueRange(low=0, high=2**bits - 1), f"as for {bits} bits"
    if real:
        for low, high in _REAL_RANGES:
            if loosely_in(low, high, least, most):
                return ValueRange(low=low, high=high), "a common range of real numbers"
    low, high = _nearly_all(values, extremes, real=real)
    return ValueRange(low=low, high=high), "all but one in a thousand at either end"


def _nearly_all(values: np.ndarray, extremes: tuple[float, float], *, real: bool) -> tuple[float, float]:
    low, high = (float(value) for value in np.quantile(values.astype(np.float64), _QUANTILES))
    low, high = (float(np.floor(low)), float(np.ceil(high))) if not real else (_rounded(low), _rounded(high))
    if not low < high:
        least, most = extremes
        low, high = least, most if least < most else least + max(1.0, abs(least) / 2)
    return low, high


def _by_channel(
    deep: list[_Look], channels: int, common: ValueRange, reason: str, *, real: bool
) -> tuple[ValueRange, str]:
    """Return the common range and its reason or, if nearly all values of a channel lie close together, one of each."""
    bands = [look.some for look in deep if look.some is not None and look.some.shape[1:] == (channels,)]
    if len(bands) < len(deep) or channels == 1:
        return common, reason
    own = [_nearly_all(band, (float(band.min()), float(band.max())), real=real) for band in np.concatenate(bands).T]
    lows, highs = zip(*own, strict=True)
    black, white = common.ends
    if min(high - low for low, high in own) >= _NARROW * (white - black):
        return common, reason
    return ValueRange(low=lows, high=highs), "all but one in a thousand of each channel's at either end"


def _median_window(deep: list[_Look]) -> ValueRange:
    windows = [look.window for look in deep if look.window is not None]
    if not windows:
        raise DataError(
            f"value_range window needs files with a window (DICOM's WindowCenter and WindowWidth); none of {len(deep)} "
            "has one: give LOW,HIGH, or auto"
        )
    low, high = np.median(np.asarray(windows, np.float64), axis=0).tolist()
    return ValueRange(low=low, high=high, window=True)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _doubt(values: np.ndarray, found: ValueRange) -> str:
    """Return a warning if nearly all values lie close together in the range because outliers determined it."""
    low, high = (_rounded(float(value)) for value in np.quantile(values.astype(np.float64), _QUANTILES))
    black, white = found.ends
    low, high = max(low, black), min(high, white)
    if not 0 < high - low < _NARROW * (white - black):
        return ""
    return (
        f"WARNING: 99.8 % of the values lie in {number(low)}..{number(high)}, so the images have little contrast; "
        f"--set fit.value_range={number(low)},{number(high)} would increase it."
    )


def _look_at_all(dataset: Dataset) -> list[_Look]:
    """Return the findings on a seeded sample of the training images; from data in blocks only of the first blocks."""
    split = dataset.train
    places = np.random.default_rng(0).permutation(len(split))
    if split.blocks is not None:
        places = places[np.argsort(split.blocks.numbers[places], kind="stable")]
    sources = [split.sources[int(place)] for place in np.sort(places[:_SAMPLE])]
    if all(isinstance(source, np.ndarray) for source in sources):
        return []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks = pool.map(lambda source: _look_at(source, dataset.decoding), sources)
        return [look for look in looks if look is not None]


def _look_at(source: Source, decoding: Decoding) -> _Look | None:
    if isinstance(source, np.ndarray):
        return _Look(kind=ORDINARY)
    try:
        file, name = encoded(source), source_name(source, "")
        header = image_header(file, name=name, decoding=decoding)
        if decoding.sound is not None and header.values != DECIBELS:  # an image among sounds
            return None
        if header.values == ORDINARY:
            return _Look(kind=ORDINARY)
        found = _summary(header.values, stored_values(file, decoding, name=name))
        return dataclasses.replace(found, window=header.window)
    except (ImageError, OSError):  # inspection reports it for all images
        return None


def _summary(kind: str, parts: Iterable[np.ndarray]) -> _Look:
    rng, extremes, some = np.random.default_rng(0), [], []
    for part in parts:
        pixels = part.reshape(-1, part.shape[2]) if part.ndim == 3 else part.reshape(-1, 1)
        if is_real(kind):
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
        if not pixels.size:
            continue
        extremes += [float(pixels.min()), float(pixels.max())]
        some.append(pixels[rng.integers(0, len(pixels), min(len(pixels), _KEPT))])
    if not some:
        return _Look(kind=kind)
    kept = np.concatenate(some)
    most = _KEPT if kept.shape[1] <= _FEW_BANDS else _FEW_BANDS * _KEPT // kept.shape[1]
    if len(kept) > most:
        kept = kept[rng.integers(0, len(kept), most)]
    return _Look(kind=kind, least=min(extremes), most=max(extremes), some=kept)
