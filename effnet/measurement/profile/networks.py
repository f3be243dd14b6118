"""The networks that a profile measures: random ones of the search space, and mixtures that separate their parts.

Every graph of a profile is an `ArchSpec`, so that each runtime times real networks, written by the same exporter and
fused in the same way.
"""

import dataclasses
import random
from typing import get_args

from effnet.arch.blocks import find_kind
from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale, with_eca, with_total_stride
from effnet.arch.spec import Activation, ArchSpec, BlockSpec, Gate, StemSpec, eca_kernel_size

FAMILIES = ("b0", "lite0", "v2_b0")
RESOLUTIONS = (32, 48, 64, 96, 128, 160, 192, 224)
_LEAST_PHI, _MOST_PHI = -18.0, 1.5
_CLASSES = (2, 10, 100, 1000)
# Widths of mixtures: as scaling rounds them, and now and then as pruning leaves them.
_WIDTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384)
_ODD_SHARE = 0.2
_ECA_SHARE = 0.15
_MOST_MIX_MACS = 150_000_000
_MIXTURE = "mixture"


def random_network(rng: random.Random) -> ArchSpec:
    """Return a random network of the search space: family x phi x resolution x activation x attention x kernel."""
    family = rng.choice(FAMILIES)
    resolution = rng.choice(RESOLUTIONS)
    base = get_spec(family, num_classes=rng.choice(_CLASSES))
    phi = round(rng.uniform(_LEAST_PHI, _MOST_PHI), 2)
    spec = scale(base, phi=phi, resolution=resolution)
    if resolution <= 64 or rng.random() < 0.2:
        least_map = rng.choice((2, 4))
        spec = with_total_stride(spec, max(s for s in (1, 2, 4, 8, 16, 32) if s == 1 or resolution // s >= least_map))
    spec = dataclasses.replace(
        spec,
        activation=rng.choice(get_args(Activation)),
        se_gate=rng.choice(get_args(Gate)[:2]),
        padding=rng.choice(("same", "symmetric")),
    )
    kernel, attention = rng.choice((None, None, 3, 5)), _draw_attention(rng, share=0.8)
    spec = with_eca(spec) if attention == "eca" else spec
    stages = tuple(tuple(_changed(b, kernel, attention == "none") for b in blocks) for blocks in spec.stages)
    note = spec.activation + (f" k{kernel}" if kernel else "") + {"se": "", "eca": " ECA", "none": " no SE"}[attention]
    return dataclasses.replace(spec, stages=stages, lineage=dataclasses.replace(spec.lineage, note=note))


def _draw_attention(rng: random.Random, *, share: float) -> str:
    """Return the channel attention of a network: with this probability one of SE and ECA."""
    drawn = rng.random()
    return "eca" if drawn < _ECA_SHARE else "se" if drawn < share else "none"


def _changed(block: BlockSpec, kernel: int | None, unsqueezed: bool) -> BlockSpec:
    return dataclasses.replace(
        block,
        kernel_size=kernel if kernel and block.rules.depthwise else block.kernel_size,
        se_channels=0 if unsqueezed else block.se_channels,
    )


def random_mixture(rng: random.Random) -> ArchSpec:
    """Return a small network of a few random blocks, whose widths, sides and kinds vary independently."""
    while True:
        spec = _draw_mixture(rng)
        if cost(spec).macs <= _MOST_MIX_MACS:
            return spec


def _draw_mixture(rng: random.Random) -> ArchSpec:
    resolution = rng.choice((8, 14, 16, 28, 32, 56, 64, 112))
    odd = rng.random() < _ODD_SHARE

    def width(most: int = 400) -> int:
        found = rng.choice([w for w in _WIDTHS if w <= most])
        return max(3, found - rng.randrange(8)) if odd else found

    stem = StemSpec(channels=width(96), stride=rng.choice((1, 2)))
    fed, stages = stem.channels, []
    for _ in range(rng.choice((1, 1, 2, 3))):
        stages.append(_mixed_stage(rng, fed, width()))
        fed = stages[-1][-1].out_channels
    activation = rng.choice(get_args(Activation))
    return ArchSpec(
        lineage=Lineage(base=_MIXTURE, variant=activation, resolution=resolution),
        num_classes=rng.choice(_CLASSES),
        resolution=resolution,
        stem=stem,
        stages=tuple(stages),
        head_channels=rng.choice((0, 0, 320, 1280)),
        activation=activation,
        se_gate=rng.choice(get_args(Gate)[:2]),
    )


def _mixed_stage(rng: random.Random, fed: int, out: int) -> tuple[BlockSpec, ...]:
    kind = rng.choice(("mbconv", "mbconv", "depthwise_separable", "fused_mbconv", "conv"))
    rules = find_kind(kind)
    kernel = rng.choice((3, 5)) if rules.depthwise else 3
    ratio, attention, stride = rng.choice((2, 4, 6)), _draw_attention(rng, share=0.5), rng.choice((1, 1, 2))
    attention = attention if rules.squeezes else "none"
    blocks = []
    for number in range(rng.choice((1, 2, 4))):
        step = stride if number == 0 else 1
        tied = rules.tied_channels(fed, out)
        mid = ratio * fed if tied is None else tied
        blocks.append(
            BlockSpec(
                kind=kind,
                kernel_size=kernel,
                stride=step,
                in_channels=fed,
                mid_channels=mid,
                out_channels=out,
                se_channels=max(1, fed // 4) if attention == "se" else 0,
                eca_kernel=eca_kernel_size(mid) if attention == "eca" else 0,
                residual="identity" if step == 1 and fed == out and rng.random() < 0.8 else "none",
            )
        )
        fed = out
    return tuple(blocks)


def profile_networks(*, networks: int, mixtures: int, seed: int = 0) -> list[ArchSpec]:
    """Return the networks that a profile measures, without duplicates; every prefix of the list holds some of each."""
    rng = random.Random(seed)
    found: dict[ArchSpec, None] = {}
    left = {random_network: networks, random_mixture: mixtures}
    while any(left.values()):
        draw = max(left, key=lambda kind: left[kind] / (networks if kind is random_network else mixtures or 1))
        left[draw] -= 1
        found.setdefault(draw(rng))
    return list(found)


def is_mixture(spec: ArchSpec) -> bool:
    """Whether `spec` is a mixture rather than a network of the search space."""
    return spec.lineage.base == _MIXTURE
