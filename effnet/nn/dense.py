"""Networks with a decoder: detectors and segmenters, as torch modules."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from effnet.arch.decoders.layers import BOXES, SCORES
from effnet.arch.decoders.record import Detector, PointHead
from effnet.arch.layers import GraphOutput, Layer, Size, backbone_taps, graph_outputs, named_layers
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import SpecError
from effnet.nn.layers import Resize, initialise_, make_module
from effnet.nn.network import Network, Trunk, build, make_trunk
from effnet.nn.recompute import recomputed

# The probability of every class at first, so that the many places without an object do not decide the first steps.
# Source: Lin et al. 2017, Focal Loss, arXiv 1708.02002, section 4.1.
_PRIOR = 0.01
# The distance of the sides of a point's first box from it, in cells: as of ATSS' square.
# Source: Zhang et al. 2020, arXiv 1912.02424, section 4.
_DISTANCE = 4.0


class DenseNetwork(Trunk):
    """The network of a spec with a decoder: stem, stages of blocks, and the layers of the decoder.

    Its modules have the names of the layers or, if `shared`, that under which layers share their weights.
    """

    def __init__(self, spec: ArchSpec, *, drop_path: float, norm_momentum: float, shared: bool = True) -> None:
        super().__init__()
        if spec.decoder is None:
            raise SpecError(f"{spec.name} must have a decoder; build it with effnet.nn.build")
        self.spec = spec
        layers = named_layers(spec)
        self.stem, self.stages = make_trunk(spec, layers, drop_path=drop_path, norm_momentum=norm_momentum)
        self.outputs = graph_outputs(spec)
        decoding = [(name, layer) for name, layer in layers if not name.startswith(("stem.", "stages."))]
        self.graph = decoding if shared else [(name, layer._replace(weights="")) for name, layer in decoding]
        read = {source for _, layer in self.graph for source in layer.inputs}
        # The layers of the backbone that the decoder reads, by level, and the block that ends in each.
        self.tapped = {level: name for level, name in backbone_taps(spec).items() if name in read}
        self._blocks = {".".join(name.split(".")[:3]): level for level, name in self.tapped.items() if level}
        for name, layer in self.graph:
            self._add(layer.weights or name, layer, norm_momentum)
        last = {source: name for name, layer in self.graph for source in layer.inputs}
        self._done: dict[str, list[str]] = {}
        for source, name in last.items():
            self._done.setdefault(name, []).append(source)

    def _add(self, name: str, layer: Layer, norm_momentum: float) -> None:
        """Add the module of a layer under its name, within modules for the words before it."""
        *words, last = name.split(".")
        parent: nn.Module = self
        for word in words:
            if not hasattr(parent, word):
                parent.add_module(word, nn.Module())
            parent = parent.get_submodule(word)
        if not hasattr(parent, last):
            parent.add_module(last, make_module(layer, self.spec, norm_momentum=norm_momentum))

    def taps(self, x: Tensor) -> dict[int, Tensor]:
        """Return the feature maps that the decoder reads, by level, for normalised images [batch, C, height, width].

        Level l has the sides of the image over 2^l; 0 is the stem.
        """
        x = self.stem(x)
        found = {0: x} if 0 in self.tapped else {}
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage):
                x = recomputed(block, x) if self.recompute and self.training else block(x)
                if (level := self._blocks.get(f"stages.{i}.{j}")) is not None:
                    found[level] = x
        return found

    def decode(self, taps: Mapping[int, Tensor], *, size: Size | None = None) -> dict[str, Tensor]:
        """Return the named outputs from the feature maps of `taps`, for images of `size`, by default the spec's."""
        values = {self.tapped[level]: feature_map for level, feature_map in taps.items()}
        for name, layer in self.graph:
            module = self.get_submodule(layer.weights or name)
            inputs = [values[source] for source in layer.inputs]
            if isinstance(module, Resize):
                values[name] = module(*inputs, size or self.spec.input_size)
            else:
                values[name] = module(*inputs)
            for source in self._done.get(name, ()):
                del values[source]
        return {output.name: _gathered(output, values) for output in self.outputs}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map normalised images [batch, in_channels, height, width] to the named outputs.

        A detector's are `boxes` [batch, places, 4] and `scores` [batch, places, classes], a segmenter's `mask` [batch,
        classes, rows, columns].
        """
        return self.decode(self.taps(x), size=(x.shape[-2], x.shape[-1]))

    def rows(self, x: Tensor) -> Tensor:
        """Return the outputs as a file's engine does: [batch, columns], flattened, one after the other."""
        return torch.cat([output.flatten(1) for output in self(x).values()], dim=1)


def _gathered(output: GraphOutput, values: Mapping[str, Tensor]) -> Tensor:
    """Return a named output from the last layers."""
    maps = [values[name] for name in output.layers]
    if output.kind == "map":
        return maps[0]
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, output.columns) for each in maps], dim=1)


def build_dense(
    spec: ArchSpec | str, *, drop_path: float = 0.0, norm_momentum: float = 0.1, seed: int | None = None
) -> DenseNetwork:
    """Return the module of a spec with a decoder, with randomly initialised weights.

    The last layers have small weights; the biases of a detector's scores give every class the probability 0.01, those
    of its points' boxes squares of 8 cells.
    `drop_path`, `norm_momentum` and `seed` are as in `effnet.nn.network.build`. Raises SpecError for another spec.
    """
    network = DenseNetwork(as_spec(spec), drop_path=drop_path, norm_momentum=norm_momentum)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    initialise_(network, generator)
    shared = {name: layer.weights or name for name, layer in network.graph}
    with torch.no_grad():
        for output in network.outputs:
            last = network.get_submodule(shared[output.layers[0]])
            assert isinstance(last, nn.Conv2d)
            last.weight.normal_(0.0, 0.01, generator=generator)
            if output.name == SCORES:
                assert last.bias is not None
                last.bias.fill_(-math.log((1 - _PRIOR) / _PRIOR))
            if output.name == BOXES and isinstance(network.spec.decoder, Detector):
                assert last.bias is not None
                if isinstance(network.spec.decoder.head, PointHead):
                    last.bias.fill_(math.log(_DISTANCE))
    return network


def build_network(
    spec: ArchSpec | str,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    norm_momentum: float = 0.1,
    seed: int | None = None,
) -> Network | DenseNetwork:
    """Return the module of any spec: as `build_dense` does if it has a decoder, else as `effnet.nn.network.build`."""
    spec = as_spec(spec)
    if spec.decoder is not None:
        return build_dense(spec, drop_path=drop_path, norm_momentum=norm_momentum, seed=seed)
    return build(spec, dropout=dropout, drop_path=drop_path, norm_momentum=norm_momentum, seed=seed)
