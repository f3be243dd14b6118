"""Calibration of a TFLite graph: the range of every feature map, measured on images."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from effnet.errors import WeightsError
from effnet.runtimes.litert.engine import preload
from effnet.runtimes.litert.flatbuffer import load_schema, serialise
from effnet.runtimes.onnxruntime.session import IMAGE
from effnet.system.machine import usable_cores

Progress = Callable[[int, int], None]
Range = tuple[float, float]

# The share of a feature map's values, over all images, that "percentile" excludes at each end.
_TAIL = 1e-4
# XNNPACK leaves a sum to slow kernels if a summand's step is below 1/1024 of the sum's or above 256 times it.
_LEAST_SUMMAND, _LEAST_SUM = 1 / 512, 1 / 128
# It does so, too, if a product's step is 2^16 times the product of its factors' steps.
_LEAST_PRODUCT = 255 / 2**14
# LiteRT aborts the process at steps of 1e-11, which vanishing signals between random weights have.
_LEAST_WIDTH = 1e-5


def observe(
    model: Any, images: np.ndarray, *, method: str, sources: set[str], progress: Progress | None
) -> tuple[dict[str, Range], dict[str, np.ndarray]]:
    """Return the range of every feature map of the float graph, and the channels' means of those in `sources`.

    A range by "minmax" includes all values seen; by "percentile" all but one in 10,000 at each end.
    """
    graph = model.subgraphs[0]
    maps = [index for operator in graph.operators for index in operator.outputs]
    with quiet():
        interpreter = preload().Interpreter(
            model_content=serialise(model), num_threads=usable_cores(), experimental_preserve_all_tensors=True
        )
    interpreter.allocate_tensors()
    means = {name: np.zeros(0) for name in sources}
    lows, highs = ([np.zeros(0, np.float32)] * len(maps) for _ in range(2))
    for number, image in enumerate(images):
        interpreter.set_tensor(graph.inputs[0], image[None].astype(np.float32))
        interpreter.invoke()
        for column, index in enumerate(maps):
            name, values = graph.tensors[index].name, interpreter.get_tensor(index)
            outside = 0 if method == "minmax" else int(_TAIL * values.size * len(images))
            lows[column] = -_largest(-lows[column], -values, outside + 1)
            highs[column] = _largest(highs[column], values, outside + 1)
            if name in sources:
                mean = values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64) / len(images)
                means[name] = mean + (means[name] if number else 0)
        if progress:
            progress(number + 1, len(images))
    low = np.array([values.max() for values in lows])
    high = np.array([values.min() for values in highs])
    # Zero must be exact, because it pads. A feature map that is always zero may have any range.
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    high[low == high] = 1.0
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise WeightsError(
            "a network must output finite numbers to be quantized, but some are not: its weights are damaged"
        )
    names = [graph.tensors[index].name for index in maps]
    ranges = {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
    return ranges | {IMAGE: (0.0, 255.0)}, means


def _largest(kept: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` largest of `kept`, the largest so far, and of `values`."""
    if count == 1:
        return np.append(kept, values.max()).max(keepdims=True)
    if len(kept) == count:
        values = values[values > kept.min()]
    kept = np.append(kept, values)
    return kept if len(kept) <= count else np.partition(kept, len(kept) - count)[-count:]


def widen(model: Any, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Widen tiny ranges, so that every sum and product has a fast kernel and none fails.

    A summand's widened step is still a small part of the sum's; sums and factors are widened only if their values are
    negligible: nothing is lost.
    """
    graph, codes = model.subgraphs[0], load_schema().BuiltinOperator
    found = {name: _scaled(ends, _LEAST_WIDTH / _width(ends)) for name, ends in ranges.items()}
    steps = []
    for operator in graph.operators:
        names = [graph.tensors[index].name for index in (*operator.outputs, *operator.inputs)]
        # Constants are quantized with ranges of their own.
        steps.append(
            (model.operatorCodes[operator.opcodeIndex].builtinCode, names[0], [n for n in names[1:] if n in found])
        )
    for code, output, parts in steps:  # a sum may be a summand later
        if code == codes.ADD:
            widest = max(_width(found[name]) for name in parts)
            found[output] = _scaled(found[output], widest * _LEAST_SUM / _width(found[output]))
    for code, output, parts in reversed(steps):
        whole = _width(found[output])
        if code == codes.ADD:
            for name in parts:
                found[name] = _scaled(found[name], whole * _LEAST_SUMMAND / _width(found[name]))
        elif code == codes.MUL and len(parts) == 2:
            product = _width(found[parts[0]]) * _width(found[parts[1]])
            found[parts[1]] = _scaled(found[parts[1]], whole * _LEAST_PRODUCT / product)
        elif code == codes.RESHAPE:  # both have one step
            found[parts[0]] = found[output]
    return found


def _width(ends: Range) -> float:
    return ends[1] - ends[0]


def _scaled(ends: Range, factor: float) -> Range:
    """Return the range widened by `factor`, if that is above 1; zero keeps its relative position."""
    return ends[0] * max(1.0, factor), ends[1] * max(1.0, factor)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence LiteRT's memory warning: all feature maps of a graph are kept on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*preserve_all_tensors")
        yield
