"""A network as a list of named layers, and the arithmetic of that list: sides, padding, readers, units.

The names are the module names, the state-dict keys, the rows of `cost` and of the latency table. The list is
a data-flow graph in execution order: each layer names the layers whose outputs it reads. The inside of a block is in
`arch/blocks.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from effnet.errors import SpecError

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec, BlockSpec

Op = Literal["conv", "norm", "act", "max_pool", "global_pool", "mul", "add", "linear", "channel_conv"]
Width = Literal["mid", "out", "se"]
"""A width of a block: `mid_channels`, `out_channels` or `se_channels`."""

INPUT = "input"
CLASSES = "classes"
SHORTCUT_SUM = "add"
"""The name, within its block, of the sum of a block and its shortcut."""


class Layer(NamedTuple):
    """One operation of the network; a tuple because planning creates hundreds of thousands of them.

    `inputs` are the names of the layers that it reads (`input` is the image). `function` is the name of an
    activation or of a gate. A "channel_conv" slides one kernel along the channels of a feature map of one pixel.
    """

    op: Op
    inputs: tuple[str, ...]
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    function: str = ""


Layers = list[tuple[str, Layer]]


class Body:
    """The layers of a network under construction; a block kind appends those of `block`.

    Methods append layers in execution order and return the name of the last one, which others may read. Convolutions
    name the width that they write; `widths` holds the name and the channels of every output's width.
    """

    __slots__ = ("_function", "_known", "_prefix", "block", "layers", "spec", "widths")

    block: "BlockSpec"

    def __init__(self, spec: "ArchSpec") -> None:
        self.spec = spec
        self.layers: Layers = []
        self.widths: dict[str, tuple[str, int]] = {INPUT: (INPUT, spec.in_channels)}

    def enter(self, prefix: str, **known: tuple[str, int]) -> None:
        """Begin the part of the network whose layers' names start with `prefix`; `known` are the widths it writes."""
        self._prefix, self._known, self._function = f"{prefix}." if prefix else "", known, self.spec.activation

    def enter_block(self, prefix: str, block: "BlockSpec") -> None:
        """Begin a block of the network."""
        self.block = block
        mid, out, se = (f"{prefix}.mid", block.mid_channels), (f"{prefix}.out", block.out_channels), f"{prefix}.se"
        self.enter(prefix, mid=mid, out=out, se=(se, block.se_channels))
        self._function = block.activation or self.spec.activation

    def append(self, name: str, layer: Layer, width: tuple[str, int]) -> str:
        """Append any layer and the width that it writes; its name within the block must be new."""
        name = self._prefix + name
        self.layers.append((name, layer))
        self.widths[name] = width
        return name

    def unit(
        self, name: str, x: str, writes: Width, *,
        kernel_size: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True,
    ) -> str:  # fmt: skip
        """Append a convolution of `x` that writes a width, a BatchNorm and, if `act`, the network's activation.

        With an empty name these are parts of the block itself. Raises SpecError if a depthwise convolution would
        change the number of channels.
        """
        prefix = f"{name}." if name else ""
        width = self._known[writes]
        fed, channels = self.widths[x][1], width[1]
        if depthwise and fed != channels:
            raise SpecError(
                f"{self._prefix}{prefix}conv is depthwise: it must write as many channels as it reads, {fed}; "
                f"{writes} has {channels}"
            )
        groups = channels if depthwise else 1
        x = self.append(prefix + "conv", Layer("conv", (x,), fed, channels, kernel_size, stride, groups), width)
        x = self.append(prefix + "norm", Layer("norm", (x,), channels, channels), width)
        return self.act(x, prefix + "act") if act else x

    def act(self, x: str, name: str = "act") -> str:
        """Append the activation of the block, or else of the network."""
        width = self.widths[x]
        return self.append(name, Layer("act", (x,), width[1], width[1], function=self._function), width)

    def add(self, name: str, x: str, y: str) -> str:
        """Append a sum. Raises SpecError if its terms are one map or have different widths: pruning would part them."""
        width = self.widths[x]
        if x == y:
            raise SpecError(f"{self._prefix}{name} must add two feature maps; got {x} twice")
        if self.widths[y] != width:
            raise SpecError(f"{self._prefix}{name} must add feature maps of one width; got {width}, {self.widths[y]}")
        return self.append(name, Layer("add", (x, y), width[1], width[1]), width)

    def shortcut(self, y: str, x: str) -> str:
        """Append the sum of a block's output `y` and its shortcut `x`, unless the block has none."""
        if self.block.residual == "none":
            return y
        width = self.widths[y]
        return self.append(SHORTCUT_SUM, Layer("add", (y, x), width[1], width[1]), width)

    def attention(self, x: str) -> str:
        """Append the block's channel attention, if it has one: a gate for each channel, from the pooled map."""
        if self.block.se_channels:
            return self._squeeze_excite(x)
        return self._efficient_attention(x) if self.block.eca_kernel else x

    def _squeeze_excite(self, x: str) -> str:
        """Hu et al. 2018: two layers see all channels."""
        width, inside = self.widths[x], self._known["se"]
        channels, squeezed = width[1], inside[1]
        y = self.append("se.pool", Layer("global_pool", (x,), channels, channels), width)
        y = self.append("se.reduce", Layer("conv", (y,), channels, squeezed, bias=True), inside)
        y = self.act(y, "se.act")
        y = self.append("se.expand", Layer("conv", (y,), squeezed, channels, bias=True), width)
        return self._scale("se", x, y)

    def _efficient_attention(self, x: str) -> str:
        """Wang et al. 2020, ECA-Net, section 3.2.3: one kernel, shared, sees each channel and its neighbours."""
        width, kernel = self.widths[x], self.block.eca_kernel
        channels = width[1]
        y = self.append("eca.pool", Layer("global_pool", (x,), channels, channels), width)
        y = self.append("eca.conv", Layer("channel_conv", (y,), channels, channels, kernel), width)
        return self._scale("eca", x, y)

    def _scale(self, unit: str, x: str, y: str) -> str:
        """Append the gate of `y` and its product with `x`."""
        width = self.widths[x]
        channels = width[1]
        if self.spec.se_gate != "none":
            y = self.append(f"{unit}.gate", Layer("act", (y,), channels, channels, function=self.spec.se_gate), width)
        return self.append(f"{unit}.scale", Layer("mul", (x, y), channels, channels), width)


def named_layers(spec: "ArchSpec") -> Layers:
    """Return every layer of `spec` with its name, in execution order."""
    return _written(spec).layers


def layer_widths(spec: "ArchSpec") -> dict[str, tuple[str, str]]:
    """Return the widths that every layer reads and writes, such as ("stages.0.0.out", "stages.0.1.mid")."""
    body = _written(spec)
    return {name: (body.widths[layer.inputs[0]][0], body.widths[name][0]) for name, layer in body.layers}


def _written(spec: "ArchSpec") -> Body:
    body, stem = Body(spec), spec.stem
    body.enter("stem", out=("stem", stem.channels))
    x = body.unit("", INPUT, "out", kernel_size=stem.kernel_size, stride=stem.stride)
    if stem.max_pool:
        x = body.append("pool", Layer("max_pool", (x,), stem.channels, stem.channels, 3, 2), body.widths[x])
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
    if spec.head_channels:
        body.enter("head", out=("head", spec.head_channels))
        x = body.unit("", x, "out")
    body.enter("")
    width = body.widths[x]
    x = body.append("pool", Layer("global_pool", (x,), width[1], width[1]), width)
    if spec.num_classes:
        classes = (CLASSES, spec.num_classes)
        body.append("classifier", Layer("linear", (x,), width[1], spec.num_classes, bias=True), classes)
    return body


def output_side(side: int, stride: int) -> int:
    """Return the side of a feature map after an odd kernel with this stride, under either padding rule."""
    return -(-side // stride)


def map_sides(layers: Iterable[tuple[str, Layer]], side: int) -> dict[str, int]:
    """Return the side of every layer's output feature map, and of the image, for images of `side` pixels."""
    sides = {INPUT: side}
    for name, layer in layers:
        if layer.op == "global_pool":
            sides[name] = 1
        else:
            side = sides[layer.inputs[0]]
            sides[name] = side if layer.stride == 1 else output_side(side, layer.stride)
    return sides


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
