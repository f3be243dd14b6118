"""The importance of each channel of a network, from its weights, its BatchNorm gains, or its effect on the loss."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor, nn

from effnet.arch.channels import last_norms, tied_widths, width_channels
from effnet.arch.layers import layer_widths, named_layers, readers
from effnet.arch.spec import ArchSpec
from effnet.errors import InputError
from effnet.nn.dense import DenseNetwork
from effnet.nn.network import Network
from effnet.training.losses import Batch, LossFn
from effnet.weights.adapt import has_folded_norms
from effnet.weights.folding import fold_norms

Method = Literal["taylor", "l1", "l2", "bn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The importance of each channel and of each block with an identity shortcut; larger is more important.

    `channels` has an array [channels] for every tie of `tied_widths`, by its name; `blocks` has one number per block,
    by the block's name. If `additive`, these are changes of the loss, which add up over layers and can be divided by
    their cost; otherwise a typical channel of every tie has 1, and so does a typical block.
    """

    method: Method
    additive: bool
    channels: Mapping[str, np.ndarray]
    blocks: Mapping[str, float]


def check_method(method: str) -> None:
    """Raise InputError unless `method` is an importance criterion."""
    if method not in get_args(Method):
        raise InputError(f"the method must be one of {', '.join(get_args(Method))}; got {method!r}")


def weight_importance(spec: ArchSpec, state: Mapping[str, np.ndarray], *, method: Method = "l1") -> Importance:
    """Return the importance from weights alone; `state` is a state dict as arrays.

    l1 and l2 are norms of a channel's filter with the following BatchNorm folded in, without which its size means
    nothing (Li et al. 2017, "Pruning Filters for Efficient ConvNets"); bn is the gain of that BatchNorm (Liu et al.
    2017, "Network Slimming"). Each layer is divided by its mean, and a tie has the mean of its layers. Raises
    InputError for bn if BatchNorm is folded away, since all gains are one.
    """
    check_method(method)
    if method == "taylor":
        raise InputError("taylor needs data: use taylor_importance")
    if method == "bn" and has_folded_norms(state, spec):
        raise InputError("bn needs BatchNorm gains; those of this network are folded away: use l1, l2 or taylor")
    sizes = _gains(spec, state) if method == "bn" else {}
    folded = fold_norms(spec, state)

    def of_layer(name: str) -> np.ndarray:
        if name in sizes:
            return sizes[name]
        weight = np.abs(folded[f"{name}.weight"].astype(np.float64)).reshape(len(folded[f"{name}.weight"]), -1)
        return weight.sum(1) if method == "l1" else np.sqrt((weight**2).sum(1))

    channels: dict[str, np.ndarray] = {}
    blocks: dict[str, float] = {}
    last = _last_convs(spec)
    for tie in tied_widths(spec):
        raw = {name: of_layer(name) for name in tie.writers}
        channels[tie.name] = np.mean([_over_mean(values) for values in raw.values()], axis=0)
        means = {name: float(values.mean()) for name, values in raw.items()}
        typical = float(np.mean(list(means.values())))
        blocks |= {last[name]: means[name] / max(typical, 1e-12) for name in means if name in last}
    return Importance(method=method, additive=False, channels=channels, blocks=blocks)


def _gains(spec: ArchSpec, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the absolute gains of each BatchNorm, by the convolution before it."""
    norms = [(name, layer.inputs[0]) for name, layer in named_layers(spec) if layer.op == "norm"]
    return {conv: np.abs(state[f"{name}.weight"].astype(np.float64)) for name, conv in norms}


def _over_mean(values: np.ndarray) -> np.ndarray:
    return values / max(float(values.mean()), 1e-12)


def _last_convs(spec: ArchSpec) -> dict[str, str]:
    """Return the block of each convolution whose output is added to an identity shortcut."""
    layers = dict(named_layers(spec))
    return {layers[norm].inputs[0]: block for block, norm in last_norms(spec).items()}


def taylor_importance(network: Network | DenseNetwork, batches: Iterable[Batch], loss_fn: LossFn) -> Importance:
    """Return the change of the loss from removing each channel, to first order, on normalised `batches`.

    For a channel this is the mean over images of |sum over positions of gradient * activation|, summed over the layers
    that output this channel, after BatchNorm and activation; for a block, that of the whole tensor that it adds to its
    shortcut.
    Source: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", eq. 7,
    without its normalisation, which the later paper (2019, section 3.1) drops as well. The network runs in evaluation
    mode. Raises InputError without any batch.
    """
    spec = network.spec
    points = _points(spec)
    ends = {norm: block for block, norm in last_norms(spec).items()}
    totals: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    modules = dict(network.named_modules())

    def hook(name: str):
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return keep

    handles = [modules[name].register_forward_hook(hook(name)) for name in {*points, *ends}]
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    network.eval().requires_grad_(True)  # so that hooked outputs have gradients even in frozen layers
    images = 0
    try:
        for batch in batches:
            network.zero_grad(set_to_none=True)
            # The loss is a mean over images; an image's own gradient is larger by their number.
            (loss_fn(network, batch) * len(batch.images)).backward()
            images += len(batch.images)
            for name, output in outputs.items():
                product = (output.detach() * output.grad).sum((2, 3)).double()
                if name in points:
                    _add(totals, name, product.abs().sum(0))
                if name in ends:
                    _add(totals, f"block {ends[name]}", product.sum(1).abs().sum(0))
            outputs.clear()
    finally:
        for handle in handles:
            handle.remove()
        network.zero_grad(set_to_none=True)
        for parameter, flag in zip(network.parameters(), trainable, strict=True):
            parameter.requires_grad_(flag)
    if not images:
        raise InputError("importance needs at least one batch of images; got none")
    found = {name: (total / images).cpu().numpy() for name, total in totals.items()}
    channels = {tie.name: np.zeros(tie.channels) for tie in tied_widths(spec)}
    owners = {width: tie for tie in tied_widths(spec) for width in tie.widths}
    for name, width in points.items():
        channels[owners[width].name] += found[name]
    blocks = {name: float(found[f"block {name}"]) for name in ends.values()}
    return Importance(method="taylor", additive=True, channels=channels, blocks=blocks)


def _add(totals: dict[str, Tensor], name: str, values: Tensor) -> None:
    totals[name] = totals[name] + values if name in totals else values


def _points(spec: ArchSpec) -> dict[str, str]:
    """Return the modules whose outputs are observed, each with the name of its width; none of a decoder.

    For a convolution with BatchNorm and activation this is the last of them. Outputs are observed before a gate scales
    them and before they are added to a shortcut: afterwards the shortcut would be counted repeatedly.
    """
    layers = dict(named_layers(spec))
    widths, prunable = layer_widths(spec), width_channels(spec)
    reading = readers(layers.items())
    points = {}
    for name, layer in layers.items():
        if layer.op != "conv" or name.endswith(".se.expand") or widths[name][1] not in prunable:
            continue
        end = name
        while len(reading[end]) == 1 and layers[reading[end][0]].op in ("norm", "act"):
            end = reading[end][0]
        points[end] = widths[name][1]
    return points
