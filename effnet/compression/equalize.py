"""Cross-layer equalization: the same function with channels of similar size, so that one int8 scale suits them all.

Source: M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1.
"""

from collections.abc import Mapping

import numpy as np

from effnet.arch.layers import Layer, named_layers, readers
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError
from effnet.weights.folding import Arrays

# The largest factor for a channel: a larger one would make a channel near 0 dominate.
_LIMIT = 64.0


def equalize(spec: ArchSpec, weights: Mapping[str, np.ndarray], *, rounds: int = 3) -> Arrays:
    """Return folded weights of the same function with equally large channels between each two convolutions.

    If only a ReLU lies between two convolutions (and squeeze-and-excitation, which preserves a channel's scale), the
    first may scale a channel down by a factor that the second undoes. ECA prevents it: its kernel mixes adjacent
    channels. So do layers that share their weights, as those of a detector's levels, which can have no factor of their
    own, and the sums of a feature pyramid. Raises SpecError for any other activation: ReLU6 clips at a constant and
    SiLU is not scale-equivariant, so no factor passes through them.
    """
    if spec.activation != "relu":
        raise SpecError(
            f"equalization needs the activation relu, which is scale-equivariant; {spec.name} has {spec.activation}"
        )
    found = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    layers = dict(named_layers(spec))
    pairs = _pairs(layers)
    for _ in range(rounds):
        for first, ends in pairs:
            _balance_(found, first, ends, layers)
    return {name: array.astype(np.float32) for name, array in found.items()}


def _pairs(layers: Mapping[str, Layer]) -> list[tuple[str, list[str]]]:
    """Return each convolution whose output reaches only other convolutions, through ReLUs, and those convolutions."""
    reading = readers(layers.items())
    pairs = []
    for name, layer in layers.items():
        if layer.op == "conv" and not name.endswith((".se.reduce", ".se.expand")):
            ends = _ends(name, layers, reading)
            if ends and not any(layers[one].weights for one in (name, *ends)):
                pairs.append((name, ends))
    return pairs


def _ends(name: str, layers: Mapping[str, Layer], reading: Mapping[str, list[str]]) -> list[str]:
    """Return the convolutions and linear layers that read a layer's output; none if another operation reads it too."""
    found: list[str] = []
    for reader in reading[name]:
        layer = layers[reader]
        if layer.op in ("conv", "linear"):
            found.append(reader)
            continue
        gated = layer.op == "mul" and layer.inputs[0] == name
        relu = layer.op == "act" and layer.function == "relu"
        if not (gated or relu or layer.op in ("norm", "global_pool", "max_pool")):
            return []
        ends = _ends(reader, layers, reading)
        if not ends:
            return []
        found += ends
    return found


def _balance_(weights: Arrays, first: str, ends: list[str], layers: Mapping[str, Layer]) -> None:
    """Divide each output channel of `first` by a factor and multiply the weights of its `ends` by it, in place."""
    mine = np.abs(weights[f"{first}.weight"]).reshape(layers[first].out_channels, -1).max(1)
    theirs = np.max([_reading(weights[f"{name}.weight"], layers[name]) for name in ends], axis=0)
    usable = (mine > 0) & (theirs > 0)
    factor = np.sqrt(np.divide(mine, theirs, out=np.ones_like(mine), where=usable))
    factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / _LIMIT, _LIMIT)
    weights[f"{first}.weight"] = _scaled(weights[f"{first}.weight"], 1 / factor, axis=0)
    weights[f"{first}.bias"] = weights[f"{first}.bias"] / factor
    for name in ends:
        if layers[name].groups > 1:
            weights[f"{name}.weight"] = _scaled(weights[f"{name}.weight"], factor, axis=0)
        else:
            weights[f"{name}.weight"] = _scaled(weights[f"{name}.weight"], factor, axis=1)


def _reading(weight: np.ndarray, layer: Layer) -> np.ndarray:
    """Return the largest weight applied to each input channel; in a depthwise layer, to each channel."""
    rows = np.abs(weight) if layer.groups > 1 else np.abs(weight).swapaxes(0, 1)
    return rows.reshape(len(rows), -1).max(1)


def _scaled(weight: np.ndarray, factor: np.ndarray, *, axis: int) -> np.ndarray:
    shape = [1] * weight.ndim
    shape[axis] = -1
    return weight * factor.reshape(shape)
