"""Random networks for hypothesis, and modules with trained BatchNorm statistics."""

import dataclasses
from typing import get_args

import numpy as np
import torch
from hypothesis import strategies as st

from effnet.arch.blocks import find_kind, kind_names
from effnet.arch.layers import named_layers
from effnet.arch.lineage import Lineage
from effnet.arch.spec import (
    Activation,
    ArchSpec,
    BlockSpec,
    Gate,
    Padding,
    Rounding,
    Scaling,
    StemSpec,
)
from effnet.nn.network import Network, build

# Odd widths, as pruned networks have them.
WIDTHS = st.integers(1, 19)
KERNELS = st.sampled_from((1, 3, 5, 7))


@st.composite
def blocks(draw: st.DrawFn, *, in_channels: int, out_channels: int) -> BlockSpec:
    """Draw a valid block of any kind between these widths."""
    kind = draw(st.sampled_from(kind_names()))
    rules = find_kind(kind)
    stride = draw(st.sampled_from((1, 1, 2)))
    tied = rules.tied_channels(in_channels, out_channels)
    residuals = ["none"]
    if rules.projects:
        residuals.append("projection")
    if stride == 1 and in_channels == out_channels:
        residuals.append("identity")
    attention = draw(st.sampled_from(("se", "eca", "none"))) if rules.squeezes else "none"
    return BlockSpec(
        kind=kind,
        kernel_size=draw(KERNELS),
        stride=stride,
        in_channels=in_channels,
        mid_channels=draw(st.integers(1, 24)) if tied is None else tied,
        out_channels=out_channels,
        se_channels=draw(st.integers(1, 6)) if attention == "se" else 0,
        eca_kernel=draw(st.sampled_from((1, 3, 5))) if attention == "eca" else 0,
        residual=draw(st.sampled_from(residuals)),
        activation=draw(st.sampled_from(("", "", *get_args(Activation)))),
    )


@st.composite
def specs(draw: st.DrawFn, *, even_stages: bool = False, min_classes: int = 0) -> ArchSpec:
    """Draw a valid network, small enough to run in milliseconds.

    With `even_stages`, all blocks of a stage put out the same width, as in every released network, and the
    stem may stay fixed: what `scale` asks of its input.
    """
    stem = StemSpec(
        channels=draw(WIDTHS),
        kernel_size=draw(KERNELS),
        stride=draw(st.integers(1, 3)),
        max_pool=draw(st.booleans()),
    )
    width, stages = stem.channels, []
    for _ in range(draw(st.integers(1, 3))):
        row: list[BlockSpec] = []
        for _ in range(draw(st.integers(1, 3))):
            # Half of the blocks keep their width, so that shortcuts are common.
            kept = draw(st.booleans()) or (even_stages and row)
            out = width if kept else draw(WIDTHS)
            row.append(draw(blocks(in_channels=width, out_channels=out)))
            width = out
        stages.append(tuple(row))
    head_channels = draw(st.integers(0, 20))
    # Without a head the last stage is the last feature map.
    numbers = range(len(stages) if head_channels else len(stages) - 1)
    rounding = draw(st.sampled_from(get_args(Rounding)))
    ties_stem = stages[0][0].residual == "identity"
    return ArchSpec(
        lineage=Lineage(base="random"),
        in_channels=draw(st.integers(1, 4)),
        num_classes=draw(st.integers(min_classes, 5)),
        resolution=draw(st.integers(1, 40)),
        stem=stem,
        stages=tuple(stages),
        head_channels=head_channels,
        activation=draw(st.sampled_from(get_args(Activation))),
        se_gate=draw(st.sampled_from(get_args(Gate))),
        norm_epsilon=draw(st.sampled_from((1e-5, 1e-3))),
        padding=draw(st.sampled_from(get_args(Padding))),
        scaling=Scaling(
            rounding=rounding,
            fixed_ends=draw(st.booleans()) and not ties_stem,
            first_expands_from=draw(st.sampled_from((0, 0, stages[0][0].in_channels, 5))),
        ),
        pooled=draw(st.sampled_from(((), tuple(numbers), tuple(numbers)[-1:]))),
    )


@torch.no_grad()
def build_trained(spec: ArchSpec, *, resolution: int, seed: int = 0) -> Network:
    """Return the network in evaluation mode with trained BatchNorm statistics and logits that are far apart.

    A fresh network would hide errors: its norms do nothing, and its probabilities are all alike.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build(spec, seed=seed, norm_momentum=1.0)

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            module.bias.copy_(0.3 * normal(module.bias))
        elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            module.bias.copy_(0.5 * normal(module.bias))
    # As uniform pixels are after normalisation.
    images = 4.4 * torch.rand(16, spec.in_channels, resolution, resolution, generator=generator) - 2.1
    network.train()(images)
    network.eval()
    for norm in norms:
        spread = norm.running_var.clamp_(min=0.05).sqrt()
        norm.running_mean += 0.1 * spread * normal(spread)
        norm.running_var *= 0.8 + 0.4 * torch.rand(spread.shape, generator=generator)
    if spec.num_classes:
        spread = network(images).std().clamp(min=1e-3)
        network.classifier.weight *= 2.0 / spread
        network.classifier.bias.copy_(torch.randn(spec.num_classes, generator=generator))
    return network


def state_arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return the state dict as arrays."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def parametrised(spec: ArchSpec) -> set[str]:
    """Return the names of the layers that have parameters."""
    return {name for name, layer in named_layers(spec) if layer.op in ("conv", "norm", "linear", "channel_conv")}


def at(spec: ArchSpec, resolution: int, **changes: object) -> ArchSpec:
    """Return `spec` for images of another side."""
    return dataclasses.replace(spec, resolution=resolution, **changes)
