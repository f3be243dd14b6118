"""A network as a list of named layers, and the arithmetic of that list: sides, padding, readers, units.

The names are the module names, the state-dict keys, the rows of `cost` and of the latency table. The list is
a data-flow graph in execution order: each layer names the layers whose outputs it reads. The inside of a block is in
`arch/blocks.py`, that of a decoder in `arch/decoders/layers.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from effnet.arch.body import CLASSES, FUSION_EPSILON, INPUT, SHORTCUT_SUM, Body, GraphOutput, Layer, Layers, Size
from effnet.arch.decoders.layers import append_decoder
from effnet.errors import SpecError

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec

__all__ = [
    "CLASSES",
    "FUSION_EPSILON",
    "INPUT",
    "SHORTCUT_SUM",
    "Body",
    "GraphOutput",
    "Layer",
    "Layers",
    "Size",
    "Unit",
    "backbone_taps",
    "chain_of",
    "graph_outputs",
    "layer_widths",
    "map_sizes",
    "named_layers",
    "output_shapes",
    "output_side",
    "parameter_keys",
    "readers",
    "same_padding",
    "units_of",
]  # fmt: skip


def named_layers(spec: "ArchSpec") -> Layers:
    """Return every layer of `spec` with its name, in execution order."""
    return _written(spec).layers


def layer_widths(spec: "ArchSpec") -> dict[str, tuple[str, str]]:
    """Return the widths that every layer reads and writes, such as ("stages.0.0.out", "stages.0.1.mid")."""
    body = _written(spec)
    return {name: (body.widths[layer.inputs[0]][0], body.widths[name][0]) for name, layer in body.layers}


def graph_outputs(spec: "ArchSpec") -> tuple[GraphOutput, ...]:
    """Return the named outputs of a network with a decoder, in the order of its files."""
    return _written(spec).outputs


def output_shapes(spec: "ArchSpec", size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shape for one image of `size` of each named output of a network with a decoder."""
    body = _written(spec)
    sizes, channels = map_sizes(body.layers, size), {name: layer.out_channels for name, layer in body.layers}
    return {output.name: output.shape(sizes, channels) for output in body.outputs}


def backbone_taps(spec: "ArchSpec") -> dict[int, str]:
    """Return the last layer of the backbone at each level, whose side is the image's over 2^level; 0 is the stem."""
    return _written(spec).taps


def _written(spec: "ArchSpec") -> Body:
    body, stem = Body(spec), spec.stem
    body.enter("stem", out=("stem", stem.channels))
    x = body.unit("", INPUT, "out", kernel_size=stem.kernel_size, stride=stem.stride)
    if stem.max_pool:
        x = body.append("pool", Layer("max_pool", (x,), stem.channels, stem.channels, 3, 2), body.widths[x])
    stride = stem.stride * (2 if stem.max_pool else 1)
    body.taps[0] = x
    spread: list[str] = []
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            prefix = f"stages.{i}.{j}"
            body.enter_block(prefix, block)
            x = block.rules.layers(body, x)
            if body.widths[x] != (f"{prefix}.out", block.out_channels):
                raise SpecError(f"a {block.kind} block must write its width out at last; {x} has {body.widths[x][0]}")
            # Counted for the whole block, since planning writes hundreds of thousands of layers.
            if len(body.widths) != len(body.layers) + 1:
                raise SpecError(f"every layer of a {block.kind} block must have its own name; {prefix} repeats one")
            stride *= block.stride
            level = stride.bit_length() - 1
            body.taps[level] = x
            body.ends.append((level, x))
        if i in spec.pooled:
            spread.append(_append_spread(body, f"pooled.{i}", x))
    if spec.decoder is not None:
        append_decoder(body)
        return body
    if spec.head_channels:
        body.enter("head", out=("head", spec.head_channels))
        x = body.unit("", x, "out")
    body.enter("")
    if spread:
        parts = [body.widths[name] for name in (x, *spread)]
        width = "+".join(name for name, _ in parts), sum(channels for _, channels in parts)
        x = body.append("joined", Layer("concat", (x, *spread), width[1], width[1]), width)
    width = body.widths[x]
    x = body.append("pool", Layer("global_pool", (x,), width[1], width[1]), width)
    if spec.num_classes:
        classes = (CLASSES, spec.num_classes)
        body.append("classifier", Layer("linear", (x,), width[1], spec.num_classes, bias=True), classes)
    return body


def _append_spread(body: Body, prefix: str, x: str) -> str:
    """Append the mean of a feature map over its places, at every place of a map of the size of the last one."""
    body.enter(prefix)
    width, stride = body.widths[x], body.spec.total_stride
    x = body.append("mean", Layer("global_pool", (x,), width[1], width[1]), width)
    return body.append("spread", Layer("resize", (x,), width[1], width[1], reduction=stride), width)


def output_side(side: int, stride: int) -> int:
    """Return the side of a feature map after an odd kernel with this stride, under either padding rule."""
    return -(-side // stride)


def map_sizes(layers: Iterable[tuple[str, Layer]], size: Size) -> dict[str, Size]:
    """Return the size of every layer's output feature map, and of the image, for images of `size` pixels."""
    sizes = {INPUT: size}
    for name, layer in layers:
        if layer.op == "global_pool":
            sizes[name] = (1, 1)
        elif layer.reduction:
            sizes[name] = output_side(size[0], layer.reduction), output_side(size[1], layer.reduction)
        else:
            height, width = found = sizes[layer.inputs[0]]
            stride = layer.stride
            sizes[name] = found if stride == 1 else (output_side(height, stride), output_side(width, stride))
    return sizes


def parameter_keys(layers: Layers) -> dict[str, str]:
    """Return the name under which each convolution's or linear layer's folded weights are stored.

    A layer that shares its weights has its own where a BatchNorm follows it: folding makes them differ by level.
    """
    normed = {layer.inputs[0] for _, layer in layers if layer.op == "norm"}
    return {
        name: name if name in normed else layer.weights or name
        for name, layer in layers
        if layer.op in ("conv", "linear", "channel_conv")
    }


def same_padding(side: int, *, kernel_size: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after a feature map's side under TensorFlow's "SAME" rule: an odd one comes after.

    At stride 1 an odd kernel is padded by half of it on both sides.

    >>> same_padding(224, kernel_size=3, stride=2)
    (0, 1)
    """
    total = max((output_side(side, stride) - 1) * stride + kernel_size - side, 0)
    return total // 2, total - total // 2


def readers(layers: Iterable[tuple[str, Layer]], *, through: Collection[str] = ()) -> dict[str, list[str]]:
    """Return the layers that read each layer's output, and the image.

    Layers of the operations in `through` are passed over: what reads them reads their input.
    """
    found: dict[str, list[str]] = {INPUT: []}
    for name, layer in layers:
        if layer.op in through:
            found[name] = found[layer.inputs[0]]
            continue
        found[name] = []
        for source in layer.inputs:
            found[source].append(name)
    return found


class Unit(NamedTuple):
    """The layers of a block that share the first word of their names: a chain, and one module of the network.

    `inputs` are the names of the units that it reads; `input` is that of the block. The names in `layers` are those
    within the unit, empty for a unit of one layer.
    """

    name: str
    inputs: tuple[str, ...]
    layers: Layers


def units_of(layers: Layers, prefix: str) -> list[Unit]:
    """Return the units of the block whose layers' names start with `prefix`, in execution order.

    Raises SpecError if a unit reads a layer within another: only the last layer of a unit is its output.
    """
    inside = [(name[len(prefix) :], layer) for name, layer in layers if name.startswith(prefix)]
    parts: dict[str, Layers] = {}
    for name, layer in inside:
        parts.setdefault(name.partition(".")[0], []).append((name, layer))
    ends = {prefix + part[-1][0]: top for top, part in parts.items()}
    own = {prefix + name for name, _ in inside}
    units = []
    for top, part in parts.items():
        within = {prefix + name for name, _ in part}
        sources = dict.fromkeys(source for _, layer in part for source in layer.inputs if source not in within)
        if hidden := [source for source in sources if source in own and source not in ends]:
            raise SpecError(f"{prefix}{top} must read the last layer of a unit; it reads {hidden[0]}")
        names = tuple(ends.get(source, INPUT) for source in sources)
        units.append(Unit(top, names, [(name[len(top) + 1 :], layer) for name, layer in part]))
    return units


def chain_of(units: Sequence[Unit]) -> list[Unit]:
    """Return the units of a block that is a chain, without the sum with its input at the end; else an empty list."""
    chain = list(units)
    if chain and chain[-1].name == SHORTCUT_SUM and chain[-1].inputs[1:] == (INPUT,):
        last = chain.pop()
        if not chain or last.inputs[0] != chain[-1].name:
            return []
    before = INPUT
    for unit in chain:
        if unit.inputs != (before,):
            return []
        before = unit.name
    return chain
