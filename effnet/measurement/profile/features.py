"""Features of a network for latency and memory: counts per kind of operator, as runtimes fuse them.

A unit is the work of one kernel: a convolution with its BatchNorm, bias and (if the runtime can) activation. Units of
one kind share rates per multiply-accumulate, per element read and written, per weight and per call; a profile
estimates these rates.
"""

from effnet.arch.cost import cost
from effnet.arch.layers import INPUT, Layer, map_sizes, named_layers
from effnet.arch.spec import ArchSpec

# The multiple of channels for blocked layouts of runtimes; other widths take other, slower kernels.
_VECTOR = 16
# Sizes of cache levels in 32-bit numbers; larger working sets spill into the next level.
_CACHES = (64_000, 256_000, 1_000_000, 4_000_000)


def latency_features(spec: ArchSpec) -> dict[str, float]:
    """Return the amount of each kind of work that `spec` needs for one image at its own resolution."""
    found: dict[str, float] = {"network": 1.0}
    layers = named_layers(spec)
    sizes = map_sizes(layers, spec.input_size)
    places = {name: height * width for name, (height, width) in sizes.items()}
    weights = 0.0

    def add(name: str, amount: float) -> None:
        found[name] = found.get(name, 0.0) + amount

    add("input", places[INPUT] * spec.in_channels)
    for name, layer in layers:
        before, after = places[layer.inputs[0]], places[name]
        if layer.op in ("conv", "linear"):
            weights += _add_conv(add, layer, before, after)
        elif layer.op == "act":
            elements = layer.out_channels * after
            kind = f"act {layer.function}"
            add(f"{kind} calls", 1.0)
            add(f"{kind} elements", elements)
            _add_spill(add, "act", elements)
        elif layer.op != "norm":
            elements = layer.out_channels * max(before, after)
            add(f"{layer.op} calls", 1.0)
            add(f"{layer.op} elements", elements)
            _add_spill(add, layer.op, elements)
    for cache in _CACHES:
        add(f"weights beyond {cache}", max(0.0, weights - cache))
    return found


def _add_conv(add, layer: Layer, before: int, after: int) -> float:
    """Add a convolution or a linear layer that reads and writes as many places; return its number of weights."""
    k, c_in, c_out = layer.kernel_size, layer.in_channels, layer.out_channels
    read, written = c_in * before, c_out * after
    weights = c_in // layer.groups * c_out * k * k
    suffix = _alignment(c_in, c_out)
    if layer.op == "linear" or (before == 1 and k == 1):
        kind = "linear" if layer.op == "linear" else "vector"
        add(f"{kind} calls", 1.0)
        add(f"{kind} weights", weights)
        return weights
    if layer.groups > 1:
        kind = f"depthwise{suffix}"
        add(f"{kind} k{k} s{layer.stride} macs", weights * after)
    else:
        padded = -(-c_in // _VECTOR) * -(-c_out // _VECTOR) * _VECTOR**2 if c_in >= _VECTOR else weights / k / k
        kind = f"pointwise{suffix}" if k == 1 else (f"full{suffix}" if c_in >= _VECTOR else "stem")
        add(f"{kind} macs", padded * k * k * after)
        add(f"{kind} weights", weights)
    add(f"{kind} calls", 1.0)
    add(f"{kind} read", read)
    add(f"{kind} written", written)
    _add_spill(add, "conv", read + written)
    return weights


def _alignment(c_in: int, c_out: int) -> str:
    """Return the suffix of a kind if its widths do not fill vectors: for half of one, or for an odd part."""
    if c_out % _VECTOR == 0 and (c_in % _VECTOR == 0 or c_in < _VECTOR):
        return ""
    return " half" if c_out % (_VECTOR // 2) == 0 and (c_in % (_VECTOR // 2) == 0 or c_in < _VECTOR // 2) else " odd"


def _add_spill(add, kind: str, elements: float) -> None:
    for cache in _CACHES[:3]:
        if elements > cache:
            add(f"{kind} beyond {cache}", elements - cache)


def memory_features(spec: ArchSpec) -> dict[str, float]:
    """Return the features of a runtime's memory for `spec`: weights, live numbers, layers."""
    found = cost(spec)
    layers = named_layers(spec)
    convolutions = [layer for _, layer in layers if layer.op == "conv"]
    blocked = sum(_blocked_weights(layer) for layer in convolutions)
    return {
        "process": 1.0,
        "weights": float(found.folded_params),
        "blocked weights": float(blocked),
        "peak": float(found.peak_activations),
        "input": float(spec.in_channels * spec.input_size[0] * spec.input_size[1]),
        "layers": float(len(layers)),
        "convolutions": float(len(convolutions)),
    }


def _blocked_weights(layer: Layer) -> int:
    """Return the weights of a convolution with its widths rounded up for blocked layouts."""
    if layer.groups > 1:
        return -(-layer.out_channels // _VECTOR) * _VECTOR * layer.kernel_size**2
    c_in = layer.in_channels if layer.in_channels < _VECTOR else -(-layer.in_channels // _VECTOR) * _VECTOR
    return c_in * -(-layer.out_channels // _VECTOR) * _VECTOR * layer.kernel_size**2
