"""Weights as plain arrays: with BatchNorm folded into the convolutions, and random weights for planning."""

from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.layers import FUSION_EPSILON, named_layers, parameter_keys
from effnet.arch.spec import ArchSpec
from effnet.bundle.config import ModelConfig
from effnet.errors import SpecError

Arrays = dict[str, np.ndarray]


def fold_norms(spec: ArchSpec, state: Mapping[str, np.ndarray]) -> Arrays:
    """Return weight and bias of every convolution and linear layer with the following BatchNorm folded in.

    The kernels of ECA, without bias and BatchNorm, are returned as they are, the weights of a fusion as its
    factors. Layers that share weights without a BatchNorm share the result (`arch.layers.parameter_keys`). `state`
    is a state dict as arrays, keyed NAME.weight, NAME.bias, NAME.running_mean, NAME.running_var. Computed in
    float64, returned in float32. Raises SpecError if a key is missing or a shape differs.
    """
    folded: Arrays = {}
    layers = named_layers(spec)
    keys = parameter_keys(layers)
    for name, layer in layers:
        if layer.op in ("conv", "linear"):
            stored = layer.weights or name
            shape = (layer.out_channels, layer.in_channels // layer.groups) + (layer.kernel_size,) * 2
            weight = _take(state, f"{stored}.weight", shape if layer.op == "conv" else shape[:2])
            bias = _take(state, f"{stored}.bias", (layer.out_channels,)) if layer.bias else np.zeros(layer.out_channels)
            folded[f"{keys[name]}.weight"], folded[f"{keys[name]}.bias"] = weight, bias
        elif layer.op == "fuse":
            positive = np.maximum(_take(state, f"{name}.weight", (len(layer.inputs),)), 0)
            folded[f"{name}.weight"] = positive / (positive.sum() + FUSION_EPSILON)
        elif layer.op == "channel_conv":
            folded[f"{name}.weight"] = _take(state, f"{name}.weight", (1, 1, layer.kernel_size))
        elif layer.op == "norm":
            conv = layer.inputs[0]
            parts = ("weight", "bias", "running_mean", "running_var")
            gain, shift, mean, var = (_take(state, f"{name}.{part}", (layer.out_channels,)) for part in parts)
            factor = gain / np.sqrt(var + spec.norm_epsilon)
            folded[f"{conv}.weight"] = folded[f"{conv}.weight"] * factor[:, None, None, None]
            folded[f"{conv}.bias"] = (folded[f"{conv}.bias"] - mean) * factor + shift
    return {name: array.astype(np.float32) for name, array in folded.items()}


def own_weights(spec: ArchSpec, weights: Mapping[str, np.ndarray]) -> Arrays:
    """Return folded weights that layers which share theirs have under their own names too.

    Quantization changes the weights and biases of each layer on its own.
    """
    found = dict(weights)
    for name, key in parameter_keys(named_layers(spec)).items():
        for part in ("weight", "bias"):
            if f"{key}.{part}" in weights:
                found.setdefault(f"{name}.{part}", weights[f"{key}.{part}"])
    return found


def calibrated_weights(config: ModelConfig, state: Mapping[str, np.ndarray]) -> Arrays:
    """Return folded weights whose logits are already divided by the config's temperatures.

    Every runtime then outputs calibrated probabilities. `state` is a state dict as arrays.
    """
    weights = fold_norms(config.arch, state)
    classifier = {name: (weights[name].T / config.temperatures).T for name in weights if name.startswith("classifier.")}
    return weights | {name: array.astype(np.float32) for name, array in classifier.items()}


def scaled_stem(weights: Mapping[str, np.ndarray], std: Sequence[float]) -> np.ndarray:
    """Return the first convolution's folded weights for centred pixels of 0..255: divided by their deviation `std`.

    The mean cannot be folded too: the zeros that pad an image stand for normalised pixels.
    """
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    return (weights["stem.conv.weight"] * scale[None, :, None, None]).astype(np.float32)


def pixel_mean(mean: Sequence[float]) -> np.ndarray:
    """Return the mean of pixels scaled to 0..1 as that of pixels of 0..255, float32."""
    return 255.0 * np.asarray(mean, np.float32)


def unfold_norms(
    spec: ArchSpec, folded: Mapping[str, np.ndarray], *, shared: Mapping[str, np.ndarray] | None = None
) -> Arrays:
    """Return a state dict as arrays that computes the same as folded weights: BatchNorm only adds a bias.

    It is the inverse of `fold_norms`. Layers that share their weights, and their BatchNorms, are taken from `shared`,
    a state dict in which they are what they were. Raises SpecError if, without it, folding made weights differ that
    layers share.
    """
    state: Arrays = {}
    layers = named_layers(spec)
    keys, normed = parameter_keys(layers), {layer.inputs[0] for _, layer in layers if layer.op == "norm"}
    kept = {name for name, layer in layers if layer.weights} if shared is not None else set()
    for name, layer in layers:
        if shared is not None and (name in kept or (layer.op == "norm" and layer.inputs[0] in kept)):
            stored = layer.weights or name
            state |= {key: array for key, array in shared.items() if key.rpartition(".")[0] == stored}
        elif layer.op in ("conv", "linear"):
            stored, weight, bias = layer.weights or name, folded[f"{keys[name]}.weight"], folded[f"{keys[name]}.bias"]
            if not np.array_equal(state.setdefault(f"{stored}.weight", weight), weight):
                raise SpecError(f"layers that share the weights {stored} must have the same; those of {name} differ")
            if layer.bias:
                state[f"{stored}.bias"] = np.zeros_like(bias) if name in normed else bias
        elif layer.op == "fuse":
            factors = folded[f"{name}.weight"]
            state[f"{name}.weight"] = factors * np.float32(FUSION_EPSILON / (1 - factors.sum(dtype=np.float64)))
        elif layer.op == "channel_conv":
            state[f"{name}.weight"] = folded[f"{name}.weight"]
        elif layer.op == "norm":
            ones, zeros = np.ones(layer.out_channels, np.float32), np.zeros(layer.out_channels, np.float32)
            bias = folded[f"{layer.inputs[0]}.bias"]
            state |= {f"{name}.weight": ones, f"{name}.bias": bias, f"{name}.running_mean": zeros}
            state[f"{name}.running_var"] = ones * np.float32(1 - spec.norm_epsilon)
    return state


def _take(state: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in state:
        raise SpecError(f"the weights lack {key}, which this architecture needs")
    array = np.asarray(state[key], dtype=np.float64)
    if array.shape != shape:
        raise SpecError(f"{key} must have shape {shape}; got {array.shape}")
    return array


def random_weights(spec: ArchSpec, *, seed: int = 0) -> Arrays:
    """Return random folded weights, scaled so that signals neither vanish nor explode.

    Latency is measured with these before training; all-zero or exploding weights would time denormal or infinite
    arithmetic instead.
    """
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    layers = named_layers(spec)
    keys, first = parameter_keys(layers), dict[str, str]()
    for name, layer in layers:
        if layer.op == "fuse":
            count = len(layer.inputs)
            arrays[f"{name}.weight"] = np.full(count, 1 / (count + FUSION_EPSILON), np.float32)
        if layer.op == "channel_conv":
            kernel = rng.standard_normal((1, 1, layer.kernel_size), dtype=np.float32)
            arrays[f"{name}.weight"] = kernel * np.float32(layer.kernel_size**-0.5)
        if layer.op not in ("conv", "linear"):
            continue
        key, source = keys[name], first.setdefault(layer.weights or name, keys[name])
        if f"{source}.weight" in arrays:  # the same for all layers that share them
            arrays |= {f"{key}.{part}": arrays[f"{source}.{part}"] for part in ("weight", "bias")}
            continue
        fan_in = layer.in_channels // layer.groups
        shape: tuple[int, ...] = (layer.out_channels, fan_in)
        if layer.op == "conv":
            shape += (layer.kernel_size,) * 2
        spread = (2.0 / (fan_in * layer.kernel_size**2)) ** 0.5
        arrays[f"{key}.weight"] = rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
        arrays[f"{key}.bias"] = np.zeros(layer.out_channels, dtype=np.float32)
    return arrays
