"""Build a torch module from a spec; parameters carry the names of the spec's layers."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from effnet.arch.layers import INPUT, SHORTCUT_SUM, Layers, Unit, chain_of, named_layers, units_of
from effnet.arch.spec import ArchSpec, as_spec
from effnet.errors import SpecError
from effnet.nn.kernels.blocks import Value, block_fits, kernels_fit, plain, run_block, run_head, run_unit, unit_fits
from effnet.nn.kernels.library import load_kernels
from effnet.nn.layers import ChannelAttention, Concat, DropPath, GlobalPool, Spread, initialise_, make_module
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
    unit = ChannelAttention() if any(layer.op == "mul" for _, layer in layers) else nn.Sequential()
    for name, layer in layers:
        if layer.op != "mul":
            unit.add_module(name, make_module(layer, spec, norm_momentum=norm_momentum))
    return unit


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInfo:
    """A feature map: the module that computes it, its channels, and the image's side over its own, rounded up."""

    name: str
    channels: int
    reduction: int


class Trunk(nn.Module):
    """The stem and the stages of a network; its subclasses are whole networks and their feature maps.

    With `recompute`, training keeps only the stages' outputs and recomputes other activations in the backward pass.
    With `frozen_norms`, BatchNorm uses its running statistics in training too, as weights with folded ones need; that
    of a decoder does not. `fused` says that it trains with the fused kernels. `preprocess` is the
    effnet.data.preprocess.Preprocess of the weights, None if there is none.
    """

    recompute = False
    fused = False
    frozen_norms = False
    preprocess: object = None
    spec: ArchSpec
    stem: nn.Module
    stages: nn.ModuleList

    def train(self, mode: bool = True) -> Self:
        """Set training mode, or evaluation mode; BatchNorm layers stay in evaluation mode with `frozen_norms`."""
        super().train(mode)
        kept = (self,) if self.spec.decoder is None else (self.stem, self.stages)
        for part in kept if self.frozen_norms else ():
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """The feature maps of a network with `features_only`: of the stages with one resolution, the last."""
        last: dict[int, FeatureInfo] = {}
        reduction = self.spec.stem.stride * (2 if self.spec.stem.max_pool else 1)
        for number, blocks in enumerate(self.spec.stages):
            reduction *= math.prod(block.stride for block in blocks)
            channels = blocks[-1].out_channels
            last[reduction] = FeatureInfo(name=f"stages.{number}", channels=channels, reduction=reduction)
        return tuple(last.values())

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """Return the output feature map of every stage for normalised images [batch, in_channels, height, width]."""
        outputs = []
        x = self.stem(x)
        for stage in self.stages:
            x = recomputed(stage, x) if self.recompute and self.training else stage(x)
            outputs.append(x)
        return outputs


def make_trunk(
    spec: ArchSpec, layers: Layers, *, drop_path: float, norm_momentum: float
) -> tuple[nn.Module, nn.ModuleList]:
    """Return the modules of a network's stem and stages, from its named layers."""
    stem = [(name.removeprefix("stem."), layer) for name, layer in layers if name.startswith("stem.")]
    total = len(spec.blocks)
    numbers = iter(range(total))
    stages = nn.ModuleList(
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
    return _make_unit(stem, spec, norm_momentum), stages


class Network(Trunk):
    """The network of a spec: stem, stages of blocks, head, pooling, classifier."""

    def __init__(self, spec: ArchSpec, *, dropout: float, drop_path: float, norm_momentum: float) -> None:
        super().__init__()
        self.spec = spec
        layers = named_layers(spec)

        self.stem, self.stages = make_trunk(spec, layers, drop_path=drop_path, norm_momentum=norm_momentum)
        head = [(name.removeprefix("head."), layer) for name, layer in layers if name.startswith("head.")]
        self.head = _make_unit(head, spec, norm_momentum) if spec.head_channels else nn.Identity()
        self.pooled = nn.ModuleDict({str(stage): Spread() for stage in spec.pooled})
        self.joined = Concat() if spec.pooled else nn.Identity()
        self.pool = GlobalPool()
        self.dropout = nn.Dropout(dropout)
        classifier = dict(layers).get("classifier")
        self.classifier = make_module(classifier, spec, norm_momentum=norm_momentum) if classifier else nn.Identity()
        self.fused = False

    @property
    def num_features(self) -> int:
        """The channels of `forward_features`, and so the classifier's inputs."""
        return self.spec.feature_channels

    def get_classifier(self) -> nn.Module:
        """Return the classifier: a linear layer, or an identity if there is none."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by one with random weights for `num_classes`, or by an identity for 0.

        `spec` changes with it. Raises SpecError for a number of classes that no network can have.
        """
        self.spec = dataclasses.replace(self.spec, num_classes=num_classes)
        layer = dict(named_layers(self.spec)).get("classifier")
        like = next(self.parameters())
        self.classifier = make_module(layer, self.spec, norm_momentum=0.0) if layer else nn.Identity()
        initialise_(self.classifier, None)
        self.classifier.to(like.device, like.dtype).train(self.training)

    def maps_and_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the output feature map of every stage, and the logits [batch, num_classes]."""
        maps = self.stage_outputs(x)
        return maps, self.forward_head(self._joined(maps))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map [batch, num_features, height, width], not yet pooled, for normalised images.

        A channel of a pooled stage has its mean at every place.
        """
        return self._joined(self.stage_outputs(x))

    def _joined(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the last feature map with the channels of pooled stages, from the outputs of all stages."""
        last = self.head(maps[-1])
        return self.joined(last, *(spread(maps[int(stage)], last) for stage, spread in self.pooled.items()))

    def forward_head(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Map the result of `forward_features` to logits [batch, num_classes].

        With `pre_logits` return what the classifier reads: the pooled features [batch, num_features], without dropout.
        """
        pooled = self.pool(x).flatten(1)
        return pooled if pre_logits else self.classifier(self.dropout(pooled))

    def _fused_features(self, x: Tensor) -> Tensor:
        value: Value = run_unit(self.stem, x) if unit_fits(self.stem) else self.stem(x)
        pooled = []
        for number, stage in enumerate(self.stages):
            if self.recompute:
                value = recomputed(stage, plain(value))
            else:
                for block in stage:
                    value = block.run_fused(value) if block.fused else block(plain(value))
            if number in self.spec.pooled:
                value = plain(value)
                pooled.append(value.mean((2, 3)))
        last = run_head(self.head, plain(value)) if unit_fits(self.head) else self.pool(self.head(value)).flatten(1)
        return torch.cat([last, *pooled], dim=1) if pooled else last

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images [batch, in_channels, height, width] to logits [batch, num_classes]."""
        if self.fused and self.training and kernels_fit(x):
            return self.classifier(self.dropout(self._fused_features(x)))
        return self.forward_head(self.forward_features(x))


class FeatureMaps(Trunk):
    """The stem and the stages of a network, which return the feature maps of its `feature_info`, largest first.

    For a feature pyramid (FPN), a detector or a segmenter. The layers have the names that they have in the network.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.spec, self.preprocess = network.spec, network.preprocess
        self.recompute, self.frozen_norms = network.recompute, network.frozen_norms
        self.stem, self.stages = network.stem, network.stages

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map normalised images [batch, in_channels, height, width] to maps [batch, channels, height, width]."""
        outputs = {f"stages.{number}": output for number, output in enumerate(self.stage_outputs(x))}
        return [outputs[info.name] for info in self.feature_info]


def build(
    spec: ArchSpec | str,
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    norm_momentum: float = 0.1,
    seed: int | None = None,
) -> Network:
    """Return the module of `spec`, or of the network of that name, with randomly initialised weights.

    `dropout` acts before the classifier; `drop_path` is the rate that the last block would reach, rising
    linearly over all blocks. `norm_momentum` is torch's BatchNorm momentum (TensorFlow's 0.99 is 0.01 here).
    Weights are drawn from `seed` if given, else from torch's global generator. Raises SpecError for a spec with a
    decoder; `effnet.nn.dense.build_dense` returns its network.
    """
    spec = as_spec(spec)
    if spec.decoder is not None:
        raise SpecError(f"{spec.name} has a decoder: build it with effnet.nn.dense.build_dense")
    network = Network(spec, dropout=dropout, drop_path=drop_path, norm_momentum=norm_momentum)
    initialise_(network, None if seed is None else torch.Generator().manual_seed(seed))
    return network


def fuse_(network: Trunk) -> bool:
    """Make `network` train with the fused kernels on a CPU; return whether the kernels are available.

    The result is the same up to the order of sums: about 1e-5 of a gradient's size. Other devices, other dtypes and
    evaluation use the plain modules, as do blocks that the kernels do not support. Hooks on inner modules are not
    called.
    """
    network.fused = load_kernels() is not None
    for stage in network.stages:
        for block in stage:  # type: ignore[attr-defined]  # stages are sequences of blocks
            block.fused = network.fused and block_fits(block)
    return network.fused


def zero_classifier_(network: Network) -> None:
    """Zero the classifier's weights, so that a new network gives all classes the same probability.

    The original initialisation is meant for a thousand classes; with a few classes its first logits are so large that
    training begins by unlearning them.
    """
    if isinstance(network.classifier, nn.Linear):
        nn.init.zeros_(network.classifier.weight)
