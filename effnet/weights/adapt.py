"""Weights adapted to other input channels or another classifier; a check for folded BatchNorms."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import named_layers
from effnet.arch.spec import ArchSpec
from effnet.errors import WeightsError

Arrays = dict[str, np.ndarray]

_CLASSIFIER = ("classifier.weight", "classifier.bias")
_RGB = 3


def adapt_stem(kernel: np.ndarray, *, channels: int) -> np.ndarray:
    """Return the first kernel [out, 3, k, k] adapted to `channels` inputs, [out, channels, k, k].

    New input i gets sum_c S[i, c] kernel[:, c], where every column of S sums to one. So N equal channels, normalised
    alike, give the output that this channel gave as red, green and blue:

    - 1: the sum of the three filters.
    - 2: the filters of red and green, and half of blue's each.
    - more: the filters in turn, each divided by how often it is used (for 6, 9, ...: by N / 3).

    Raises WeightsError for a kernel of other than 3 inputs, or for no channels.
    """
    if kernel.ndim != 4 or kernel.shape[1] != _RGB:
        raise WeightsError(f"the stem must read {_RGB} channels to be adapted to {channels}; got shape {kernel.shape}")
    if channels == _RGB:
        return kernel
    return np.einsum("ic,ockl->oikl", _shares(channels), kernel).astype(kernel.dtype)


def adapt_statistics(values: Sequence[float], *, channels: int) -> tuple[float, ...]:
    """Return a mean or deviation per channel, given for red, green and blue, for `channels` inputs.

    Each input gets the average over the filters that `adapt_stem` gave it. If the three values differ and there
    are fewer than three channels, the adapted stem is off by nearly a constant, which the BatchNorm behind it learns.
    """
    if len(values) != _RGB:
        raise WeightsError(f"statistics must be given for {_RGB} channels; got {len(values)}")
    if len(set(values)) == 1:
        return (float(values[0]),) * channels
    shares = _shares(channels)
    return tuple(float(value) for value in shares @ np.asarray(values, np.float64) / shares.sum(axis=1))


def _shares(channels: int) -> np.ndarray:
    """Return S [channels, 3]: how much of the filter of each colour an input gets."""
    if channels < 1:
        raise WeightsError(f"a network must read at least 1 channel; got {channels}")
    if channels == 1:
        return np.ones((1, _RGB))
    if channels == 2:
        return np.array([[1, 0, 0.5], [0, 1, 0.5]])
    taken = np.eye(_RGB)[np.arange(channels) % _RGB]
    return taken / taken.sum(axis=0)


def replace_head(state: Mapping[str, np.ndarray], spec: ArchSpec, *, num_classes: int) -> Arrays:
    """Return the state of `spec` with a classifier of zeros for `num_classes`, or with none for 0.

    From zeros, training begins with all classes equally likely.
    """
    kept = {name: array for name, array in state.items() if name not in _CLASSIFIER}
    if num_classes:
        kept["classifier.weight"] = np.zeros((num_classes, spec.feature_channels), np.float32)
        kept["classifier.bias"] = np.zeros(num_classes, np.float32)
    return kept


def drop_background(state: Mapping[str, np.ndarray]) -> Arrays:
    """Return the state without the classifier's first class, TensorFlow's "background": 1001 classes become 1000.

    Raises WeightsError if there is no classifier, or none with at least two classes.
    """
    rows = [len(state[name]) for name in _CLASSIFIER if name in state]
    if len(rows) != len(_CLASSIFIER) or min(rows) < 2:
        raise WeightsError(f"dropping the background needs a classifier of at least 2 classes; got {rows or 'none'}")
    return {name: array[1:] if name in _CLASSIFIER else array for name, array in state.items()}


def has_folded_norms(state: Mapping[str, np.ndarray], spec: ArchSpec) -> bool:
    """Return whether all BatchNorms were folded into their convolutions, so that they only add a bias.

    Such BatchNorms have mean 0, variance 1 - epsilon and gain 1. With batch statistics the network would compute
    something else: they must stay frozen in training.
    """
    norms = [name for name, layer in named_layers(spec) if layer.op == "norm"]
    expected = {"running_mean": 0.0, "running_var": 1.0 - spec.norm_epsilon, "weight": 1.0}
    return bool(norms) and all(
        np.allclose(state[f"{name}.{part}"], value, rtol=0, atol=1e-6)
        for name in norms
        for part, value in expected.items()
    )
