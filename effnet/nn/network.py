"""Build a torch module from a spec; parameters carry the names of the spec's layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effnet.arch.layers import INPUT, SHORTCUT_SUM, Layers, Unit, chain_of, named_layers, units_of
from effnet.arch.spec import ArchSpec
from effnet.errors import SpecError
from effnet.nn.kernels.blocks import Value, block_fits, kernels_fit, plain, run_block, run_head, run_unit, unit_fits
from effnet.nn.kernels.library import load_kernels
from effnet.nn.layers import DropPath, GlobalPool, SqueezeExcite, initialise_, make_module
from effnet.nn.recompute import recomputed


class Block(nn.Module):
    """One block: its units, each run on the outputs of the units that it reads."""

    def __init__(self, units: Sequence[Unit], spec: ArchSpec, *, drop_path: float, norm_momentum: float) -> None:
        super().__init__()
        last = {source: index for index, unit in enumerate(units) for source in unit.inputs}
        # Each unit, the outputs that it reads, and those that nothing reads after it.
        self.steps = [
            (unit.name, unit.inputs, [source for source in dict.fromkeys(unit.inputs) if last[source] == index])
            for index, unit in enumerate(units)
        ]
        # The units without the sum, if the block is a chain, perhaps with its input added at the end.
        self.chain = [unit.name for unit in chain_of(units)]
        self.residual = any(unit.name == SHORTCUT_SUM for unit in units)
        self.drop_path = DropPath(drop_path if self.residual else 0.0)
        self.fused = False
        for unit in units:
            if hasattr(self, unit.name):
                raise SpecError(
                    f"a unit must not be named as an attribute of torch's modules; got {unit.name!r}: choose another"
                )
            self.add_module(unit.name, _make_unit(unit.layers, spec, norm_momentum))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, in_channels, height, width] to [batch, out_channels, ...]."""
        if self.fused and self.training and kernels_fit(x):
            return self.run_fused(x)
        outputs = {INPUT: x}
        for name, sources, done in self.steps:
            inputs = [outputs[source] for source in sources]
            for source in done:
                del outputs[source]
            if name == SHORTCUT_SUM:
                inputs[0] = self.drop_path(inputs[0])
            outputs[name] = self.get_submodule(name)(*inputs)
        return outputs[name]

    def run_fused(self, value: Value) -> Tensor:
        """Compute `forward` with the fused kernels, also for a feature map whose BatchNorm is still pending."""
        units = [self.get_submodule(unit) for unit in self.chain]
        return run_block(units, value, drop_path=self.drop_path if self.residual else None)


def _make_unit(layers: Layers, spec: ArchSpec, norm_momentum: float) -> nn.Module:
    """Return the module of a chain of layers, by their names within it; that of a nameless one is its own."""
    if layers[0][0] == "":
        return make_module(layers[0][1], spec, norm_momentum=norm_momentum)
    unit = SqueezeExcite() if any(layer.op == "mul" for _, layer in layers) else nn.Sequential()
    for name, layer in layers:
        if layer.op != "mul":
            unit.add_module(name, make_module(layer, spec, norm_momentum=norm_momentum))
    return unit


class Network(nn.Module):
    """The network of a spec: stem, stages of blocks, head, pooling, classifier.

    With `recompute`, training keeps only the stages' outputs and recomputes other activations in the backward pass.
    """

    recompute = False

    def __init__(self, spec: ArchSpec, *, dropout: float, drop_path: float, norm_momentum: float) -> None:
        super().__init__()
        self.spec = spec
        layers = named_layers(spec)

        def under(prefix: str) -> Layers:
            return [(name[len(prefix) :], layer) for name, layer in layers if name.startswith(prefix)]

        self.stem = _make_unit(under("stem."), spec, norm_momentum)
        total = len(spec.blocks)
        numbers = iter(range(total))
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(
                        units_of(layers, f"stages.{i}.{j}."),
                        spec,
                        # The rate rises linearly over ALL blocks, with or without a shortcut.
                        drop_path=drop_path * next(numbers) / total,
                        norm_momentum=norm_momentum,
                    )
                    for j in range(len(blocks))
                )
            )
            for i, blocks in enumerate(spec.stages)
        )
        self.head = _make_unit(under("head."), spec, norm_momentum) if spec.head_channels else nn.Identity()
        self.pool = GlobalPool()
        self.dropout = nn.Dropout(dropout)
        classifier = dict(layers).get("classifier")
        self.classifier = make_module(classifier, spec, norm_momentum=norm_momentum) if classifier else nn.Identity()
        self.fused = False

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the output feature map of every stage for normalised images [batch, in_channels, height, width]."""
        outputs = []
        x = self.stem(x)
        for stage in self.stages:
            x = recomputed(stage, x) if self.recompute and self.training else stage(x)
            outputs.append(x)
        return outputs

    def maps_and_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the output feature map of every stage, and the logits [batch, num_classes] computed from the last."""
        maps = self.stage_outputs(x)
        return maps, self.classifier(self.dropout(self.pool(self.head(maps[-1])).flatten(1)))

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features [batch, feature_channels] that the classifier reads."""
        if self.fused and self.training and kernels_fit(x):
            return self._fused_features(x)
        return self.pool(self.head(self.stage_outputs(x)[-1])).flatten(1)

    def _fused_features(self, x: Tensor) -> Tensor:
        value: Value = run_unit(self.stem, x) if unit_fits(self.stem) else self.stem(x)
        for stage in self.stages:
            if self.recompute:
                value = recomputed(stage, plain(value))
                continue
            for block in stage:
                value = block.run_fused(value) if block.fused else block(plain(value))
        return run_head(self.head, plain(value)) if unit_fits(self.head) else self.pool(self.head(value)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images [batch, in_channels, height, width] to logits [batch, num_classes]."""
        return self.classifier(self.dropout(self.features(x)))


def build(
    spec: ArchSpec,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    norm_momentum: float = 0.1,
    seed: int | None = None,
) -> Network:
    """Return the module of `spec` with randomly initialised weights.

    `dropout` acts before the classifier; `drop_path` is the rate that the last block would reach, rising
    linearly over all blocks. `norm_momentum` is torch's BatchNorm momentum (TensorFlow's 0.99 is 0.01 here).
    Weights are drawn from `seed` if given, else from torch's global generator.
    """
    network = Network(spec, dropout=dropout, drop_path=drop_path, norm_momentum=norm_momentum)
    initialise_(network, None if seed is None else torch.Generator().manual_seed(seed))
    return network


def fuse_(network: Network) -> bool:
    """Make `network` train with the fused kernels on a CPU; return whether the kernels are available.

    The result is the same up to the order of sums: about 1e-5 of a gradient's size. Other devices, other dtypes and
    evaluation use the plain modules, as do blocks that the kernels do not support. Hooks on inner modules are not
    called.
    """
    network.fused = load_kernels() is not None
    for stage in network.stages:
        for block in stage:
            block.fused = network.fused and block_fits(block)
    return network.fused


def zero_classifier_(network: Network) -> None:
    """Zero the classifier's weights, so that a new network gives all classes the same probability.

    The original initialisation is meant for a thousand classes; with a few classes its first logits are so large that
    training begins by unlearning them.
    """
    if isinstance(network.classifier, nn.Linear):
        nn.init.zeros_(network.classifier.weight)
