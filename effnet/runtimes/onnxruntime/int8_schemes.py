"""Choose an int8 graph's quantized tensors, their scales and zero points, and the activations that only clip."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import Layer, named_layers, readers
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError, nearest
from effnet.runtimes.onnxruntime.int8_ranges import (
    Affine,
    Ranges,
    affine,
    hard_swish_input,
    inner_sums,
    silu_input,
    within,
)

# Activations and gates that only clip their input.
_CLIPS = ("relu", "relu6", "hard_sigmoid")
# Layers without an output of their own that is quantized: BatchNorm is folded, the others write floats.
_FLOAT = ("norm", "linear", "channel_conv")


def check_layers(layers: Mapping[str, Layer], ranges: Ranges, float_layers: Sequence[str]) -> None:
    """Raise SpecError for a float layer that is no convolution or linear layer, and for a missing range."""
    known = [name for name, layer in layers.items() if layer.op in ("conv", "linear")]
    for name in float_layers:
        if name not in known:
            raise SpecError(f"float layers must be convolutions or linear layers; got {name!r}{nearest(name, known)}")
    for name in _ranged(layers):
        if name not in ranges or not np.isfinite(ranges[name]).all():
            raise SpecError(f"int8 needs a finite range of {name}; got {ranges.get(name)}: calibrate this network")


def ranged_layers(spec: ArchSpec) -> list[str]:
    """Return the names of the layers whose ranges to_qdq needs."""
    return _ranged(dict(named_layers(spec)))


def _ranged(layers: Mapping[str, Layer]) -> list[str]:
    folded, found = folded_clips(layers), []
    for name, layer in layers.items():
        found += inner_sums(name, layer)
        if layer.op not in _FLOAT and name not in folded:
            found.append(name)
    return found


def folded_clips(layers: Mapping[str, Layer]) -> dict[str, str]:
    """Return the activation after each convolution or sum, if it is only a clip and nothing else reads the output."""
    origin = {name: name if layer.op != "norm" else layer.inputs[0] for name, layer in layers.items()}
    reading = readers(layers.items(), through=("norm",))
    found = {}
    for name, layer in layers.items():
        if layer.op == "act" and layer.function in _CLIPS:
            source = origin[layer.inputs[0]]
            if layers[source].op in ("conv", "add") and reading[source] == [name]:
                found[source] = name
    return found


def schemes_of(
    layers: Mapping[str, Layer], folded: Mapping[str, str], ranges: Ranges, float_layers: frozenset[str]
) -> dict[str, Affine]:
    """Return scale and zero point of every quantized tensor, by the layer that outputs it; the rest stays float.

    A tensor is quantized if a layer that reads it computes in int8, or it is the last of a convolution, and neither its
    writer nor a reader is a float layer.
    """
    # BatchNorm is folded into the convolution before it.
    reading = readers(layers.items(), through=("norm",))
    found: dict[str, Affine] = {}
    for name, layer in reversed(list(layers.items())):  # the scale before an activation depends on the one after it
        after = reading[name]
        # A convolution over channels is float; if the gate after it is int8, so is the pool before it, which otherwise
        # would convert the whole map to floats.
        beyond = [last for reader in after if layers[reader].op == "channel_conv" for last in reading[reader]]
        wanted = any(reader in found or layers[reader].op in ("conv", "linear") for reader in (*after, *beyond))
        wanted = wanted or (layer.op == "conv" and not after)  # the last one of a decoder
        if layer.op in _FLOAT or not wanted or not float_layers.isdisjoint((name, *after)):
            continue
        if name in folded:
            found[name] = found[folded[name]]
        elif layer.op != "act" and len(after) == 1 and layers[after[0]].op == "act":
            found[name] = _before(layers[after[0]].function, ranges[name], found[after[0]])
        else:
            found[name] = affine(*within(layer.function, *ranges[name]))
        found |= {inner: affine(*ranges[inner]) for inner in inner_sums(name, layer)}
    return found


def _before(function: str, range_: tuple[float, float], output: Affine) -> Affine:
    low, high = range_
    match function:
        case "silu":
            return silu_input(low, high, output)
        case "hard_swish":
            return hard_swish_input(high, output)
        case "sigmoid":
            return affine(max(low, -8.0), min(high, 8.0))
    return affine(low, high)
