"""The operations of a training step and the tensors that each saves, as the network and its kernels run them.

Needs no torch.
"""

import math

from effnet.arch.cost import layer_costs
from effnet.arch.layers import INPUT, Layer, Layers, Size, Unit, chain_of, named_layers, same_padding, units_of
from effnet.arch.spec import ArchSpec
from effnet.training.memory.walk import PADDED, Graph, Op

# The activations whose derivative torch computes from their output; the others save their input.
_FROM_RESULT = frozenset({"relu", "sigmoid"})
# The units of operations that the fused kernels support, next to channel attention.
_UNITS = (["conv", "norm"], ["conv", "norm", "act"])


def step_graph(spec: ArchSpec, *, resolution: int, fused: bool, recompute: bool = False) -> Graph:
    """Return the graph of one image's step: torch's operations or, for supported blocks, the `fused` kernels.

    With `recompute` the inputs of stages are complete feature maps, never ones whose BatchNorm is still to be applied.
    """
    rows = layer_costs(spec, resolution=resolution)
    sizes = {row.name: row.size for row in rows} | {INPUT: spec.size_at(resolution)}
    elements = {row.name: row.out_channels * math.prod(row.size) for row in rows}
    elements[INPUT] = spec.in_channels * math.prod(sizes[INPUT])
    layers = named_layers(spec)
    job = _Job(spec, layers, Graph(elements=elements), sizes)
    for name, layer in layers:
        if fused and job.known(name):
            job.fused(name, layer, hold=not recompute)
        else:
            job.plain(name, layer)
    return job.graph


def supported_blocks(spec: ArchSpec, layers: Layers) -> dict[str, str]:
    """Return the last layer of each block that the fused kernels support, by the block's prefix."""
    found = {}
    for i, blocks in enumerate(spec.stages):
        for j in range(len(blocks)):
            prefix = f"stages.{i}.{j}"
            units = units_of(layers, f"{prefix}.")
            if _fits(chain_of(units)):
                last = units[-1]
                found[prefix] = ".".join(filter(None, (prefix, last.name, last.layers[-1][0])))
    return found


def _fits(chain: list[Unit]) -> bool:
    """Return whether the fused kernels support a block; the rule of `block_fits` in effnet/nn/kernels/blocks.py."""
    ops = [[layer.op for _, layer in unit.layers] for unit in chain]
    if not ops or ops[-1][-1] == "mul":
        return False
    for unit, successor in zip(ops, [*ops[1:], []], strict=True):
        if unit[-1] == "mul" and successor != ["conv", "norm"]:
            return False
        if unit[-1] != "mul" and unit not in _UNITS:
            return False
    return True


class _Job:
    """The graph of one network under construction."""

    def __init__(self, spec: ArchSpec, layers: Layers, graph: Graph, sizes: dict[str, Size]) -> None:
        self.spec, self.graph, self.sizes = spec, graph, sizes
        self.ends = supported_blocks(spec, layers)
        # The output name of a pending BatchNorm or its activation -> the feature map to which it will be applied.
        self.waiting: dict[str, str] = {}
        # The output name of channel attention -> its feature map and gate.
        self.scaled: dict[str, tuple[str, ...]] = {}

    def known(self, name: str) -> bool:
        """Return whether the fused kernels support the stem, block or head that contains a layer."""
        words = name.split(".")
        if words[0] == "stages":
            return ".".join(words[:3]) in self.ends
        return not self.spec.stem.max_pool if words[0] == "stem" else bool(self.spec.head_channels)

    def plain(self, name: str, layer: Layer) -> None:
        """Append a layer as torch computes it."""
        graph, (x, *others) = self.graph, layer.inputs
        self.apply(name, x)
        saves: tuple[str, ...] = ()
        match layer.op:
            case "conv" if self.spec.padding == "same" and layer.stride > 1:
                padded = name + PADDED
                pads = [same_padding(n, kernel_size=layer.kernel_size, stride=layer.stride) for n in self.sizes[x]]
                height, width = (side + sum(pad) for side, pad in zip(self.sizes[x], pads, strict=True))
                graph.elements[padded] = layer.in_channels * height * width
                graph.ops.append(Op(name, (x,), padded))
                x, saves = padded, (padded,)
            case "conv" | "norm" | "linear" | "channel_conv":
                saves = (x,)
            case "act":
                saves = (name,) if layer.function in _FROM_RESULT else (x,)
            case "mul" | "fuse":
                saves = layer.inputs
            case "max_pool":
                graph.elements[f"{name}.indices"] = 2 * graph.elements[name]  # int64
                saves = (x, f"{name}.indices")
        reads = (x, *others)
        graph.ops.append(Op(name, reads, name, saves, passes=reads if layer.op == "add" else ()))

    def apply(self, reader: str, x: str) -> None:
        """Append the pending BatchNorm and activation, if there are any."""
        if x in self.waiting:
            found = self.waiting.pop(x)
            self.graph.ops.append(Op(reader, (found,), x, (found,)))

    def fused(self, name: str, layer: Layer, *, hold: bool) -> None:
        """Append a layer as the kernels compute it; with `hold` the first block applies the BatchNorm of the stem."""
        graph, x = self.graph, layer.inputs[0]
        if layer.op == "norm" or (layer.op == "act" and x in self.waiting):
            self.waiting[name] = self.waiting.pop(x, x)
            if name in self.ends.values():
                self.apply(name, name)
            if name == "stem.act" and (not hold or self._adds("stages.0.0")):
                self.apply(name, name)
        elif layer.op == "mul":
            self.scaled[name] = layer.inputs
        elif layer.op == "add":
            found, shortcut = self.waiting.pop(x), layer.inputs[1]
            graph.ops.append(Op(name, (found, shortcut), name, (found,), passes=(shortcut,)))
        elif layer.op == "conv" and x in self.scaled:
            size = graph.elements[x]
            graph.ops.append(Op(name, self.scaled[x], name, self.scaled[x], before=size, after=size))
        elif layer.op == "conv" and name.endswith(".conv"):
            self._conv(name, layer)
        elif name == "pool" and x in self.waiting:
            found = self.waiting.pop(x)
            graph.ops.append(Op("head.pool", (found,), name, (found,), before=graph.elements[found]))
        else:
            self.plain(name, layer)

    def _conv(self, name: str, layer: Layer) -> None:
        x = layer.inputs[0]
        if not 1 < layer.groups == layer.in_channels == layer.out_channels:
            self.plain(name, layer)
        elif x in self.waiting:
            found = self.waiting.pop(x)
            size = self.graph.elements[found]
            self.graph.ops.append(Op(name, (found,), name, (found,), before=size, after=size))
        else:  # padded inside the kernel, without a copy
            self.graph.ops.append(Op(name, (x,), name, (x,)))

    def _adds(self, name: str) -> bool:
        _, stage, block = name.split(".")[:3]
        return self.spec.stages[int(stage)][int(block)].residual != "none"
