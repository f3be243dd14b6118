"""Calibration: the range of every layer's output, measured by running the fp32 network on images in ONNX Runtime."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.errors import InputError
from effnet.runtimes.onnxruntime.graph import expose, to_onnx
from effnet.runtimes.onnxruntime.int8_schemes import ranged_layers
from effnet.runtimes.onnxruntime.session import IMAGE, open_bytes
from effnet.runtimes.pipeline import Progress

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Method = Literal["minmax", "percentile", "entropy"]

# The share of values that a percentile range excludes at each end.
TAIL = 1e-4
_BINS = 2048
_LEVELS = 128
# At most this many values of each feature map, evenly spread, go into a histogram.
_SAMPLED = 1 << 14


def calibrate(
    spec: ArchSpec,
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    *,
    method: Method = "minmax",
    mean: Sequence[float],
    std: Sequence[float],
    resolution: int | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, tuple[float, float]]:
    """Return the range of each layer's output over `images`, uint8 [images, R, R, C]; deterministic.

    `minmax` takes the extremes, `percentile` excludes 1 in 10,000 values at each end, `entropy` finds the threshold
    whose int8 histogram has the least Kullback-Leibler divergence from the full one (as in TensorRT). Raises InputError
    without images, or if an output is not finite.
    """
    if not len(images):
        raise InputError("calibration needs at least one image; got none")
    model = to_onnx(spec, weights, mean=mean, std=std, resolution=resolution)
    session = open_bytes(expose(model, ranged_layers(spec)), threads=threads)
    passes = 1 if method == "minmax" else 2
    heard = progress or (lambda done, total: None)
    extremes: dict[str, tuple[float, float]] = {}
    for done, (name, values) in _outputs(session, images):
        low, high = float(values.min()), float(values.max())
        if not np.isfinite((low, high)).all():
            raise InputError(f"calibration needs finite outputs; those of {name} are not: the weights are damaged")
        before = extremes.get(name, (low, high))
        extremes[name] = (min(before[0], low), max(before[1], high))
        heard(done, passes * len(images))
    if method == "minmax":
        return extremes
    histograms = {name: np.zeros(_BINS, np.int64) for name in extremes}
    for done, (name, values) in _outputs(session, images):
        histograms[name] += _histogram(values, *extremes[name])
        heard(len(images) + done, passes * len(images))
    find = _percentiles if method == "percentile" else _least_divergence
    return {name: find(histograms[name], *extremes[name]) for name in extremes}


def _outputs(session: "InferenceSession", images: np.ndarray) -> Iterator[tuple[int, tuple[str, np.ndarray]]]:
    """Yield each output of each image with the number of images done; one image at a time, to save memory."""
    names = [output.name for output in session.get_outputs()]
    for index in range(len(images)):
        for pair in zip(names, session.run(names, {IMAGE: images[index : index + 1]}), strict=True):
            yield index + 1, pair


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    flat = values.reshape(-1)
    # An odd step visits every column of a feature map.
    flat = flat[:: max(1, len(flat) // _SAMPLED) | 1]
    bins = ((flat - low) * (_BINS / max(high - low, 1e-30))).astype(np.int32)
    return np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)


def _percentiles(histogram: np.ndarray, low: float, high: float) -> tuple[float, float]:
    edges = np.linspace(low, high, _BINS + 1)
    below = np.cumsum(histogram) / histogram.sum()
    first = int(np.searchsorted(below, TAIL, side="right"))
    last = int(np.searchsorted(below, 1 - TAIL))
    return float(edges[first]), float(edges[min(last + 1, _BINS)])


def _least_divergence(histogram: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017; on magnitudes, as there."""
    largest = max(-low, high, 1e-30)
    centres = np.abs(np.linspace(low, high, _BINS, endpoint=False) + (high - low) / (2 * _BINS))
    magnitudes = np.bincount(
        np.minimum((centres * (_BINS / largest)).astype(np.int64), _BINS - 1), weights=histogram, minlength=_BINS
    )
    magnitudes[0] = magnitudes[1]  # zeros after a ReLU, exact at any scale, would dominate
    counts = range(_LEVELS, _BINS + 1, 16)
    found = min(counts, key=lambda count: _divergence(magnitudes, count))
    threshold = found * largest / _BINS
    return max(low, -threshold), min(high, threshold)


def _divergence(magnitudes: np.ndarray, count: int) -> float:
    """Return KL(p || q) between the first `count` bins, outliers clipped into the last, and their 128-level version."""
    kept = magnitudes[:count]
    p = kept.copy()
    p[-1] += magnitudes[count:].sum()
    level = np.arange(count) * _LEVELS // count
    filled = kept > 0
    sums = np.bincount(level, weights=kept, minlength=_LEVELS)
    number = np.bincount(level, weights=filled, minlength=_LEVELS)
    q = np.where(filled, (sums / np.maximum(number, 1))[level], 0.0)
    p, q = p / max(p.sum(), 1e-30), q / max(q.sum(), 1e-30)
    # A bin that is empty in q counts as nearly empty, not as infinitely far.
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))).sum())
