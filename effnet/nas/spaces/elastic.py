"""The elastic space: the parts of one network, which share its weights."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from effnet.arch.channels import Indices, Keep, block_name, keep_from, kept_spec, width_channels
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.arch.scale import round_channels
from effnet.arch.spec import ArchSpec, BlockSpec, as_spec
from effnet.errors import SpecError
from effnet.nas.spaces.space import Decision, Genome
from effnet.weights.morph import kept_origins

WIDTHS, KERNELS = (0.5, 0.75, 1.0), (3, 5)
"""The default shares of a block's mid channels, and kernels smaller than the network's own."""
_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a network: its spec, and what it keeps of the network; its kernels are the centres of the network's."""

    spec: ArchSpec
    keep: Keep


class Slice(NamedTuple):
    """The place of an array of a part in the network: the network's array, its rows and columns, and what is cropped.

    `columns` is None for an array without inputs of its own; `crop` is taken off each end of a kernel.
    """

    source: str
    rows: Any
    columns: Any = None
    crop: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Elastic:
    """The parts of `base`: in each stage its first blocks, a share of their mid channels, and smaller kernels.

    The smaller of two widths keeps channels of the larger: the first ones, or the first of `orders`, by the names of
    `width_channels`. `share` says which share of a budget a network uses; parts above 1 or below `least` of it have no
    network. `baselines` are the uniform parts within the budget, the largest first.
    """

    base: ArchSpec
    decisions: tuple[Decision, ...]
    orders: Mapping[str, Indices] = field(default_factory=dict)
    share: Callable[[ArchSpec], float] | None = None
    least: float = 0.0
    baselines: tuple[Genome, ...] = ()
    _parts: dict[Genome, Part] = field(default_factory=dict, repr=False)

    @property
    def smallest(self) -> Genome:
        """The genome of the smallest part."""
        return (0,) * len(self.decisions)

    @property
    def largest(self) -> Genome:
        """The genome of the whole network."""
        return tuple(len(decision.choices) - 1 for decision in self.decisions)

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return the network of these choices; None if the budget rules it out."""
        spec = self.part(genome).spec
        used = self.least if self.share is None else self.share(spec)
        return spec if self.least <= used <= 1 else None

    def part(self, genome: Genome) -> Part:
        """Return the part of these choices, whatever the budget."""
        if genome not in self._parts:
            self._parts[genome] = self._find(genome)
        return self._parts[genome]

    def _find(self, genome: Genome) -> Part:
        chosen = {d.name: d.choices[index] for d, index in zip(self.decisions, genome, strict=True)}
        widths = {name: tuple(range(count)) for name, count in width_channels(self.base).items()}
        dropped = []
        for i, blocks in enumerate(self.base.stages):
            for j, block in enumerate(blocks):
                name = block_name(i, j)
                if j >= chosen.get(_name(i, "repeats"), len(blocks)):
                    dropped.append(name)
                elif _is_free(block):
                    widths[f"{name}.mid"] = self._kept(f"{name}.mid", widths, chosen.get(_name(i, "width"), 1.0))
        keep = keep_from(self.base, widths, dropped=dropped)
        left = kept_spec(self.base, keep)
        stages = tuple(
            tuple(_with_kernel(block, chosen.get(_name(i, "kernel"), block.kernel_size)) for block in row)
            for i, row in enumerate(left.stages)
        )
        spec = dataclasses.replace(left, stages=stages)
        if stages != self.base.stages:
            digest = hashlib.blake2b(repr(stages).encode(), digest_size=3).hexdigest()
            note = f"{spec.lineage.note} part {digest}".lstrip()
            spec = dataclasses.replace(spec, lineage=dataclasses.replace(spec.lineage, note=note))
        return Part(spec=spec, keep=keep)

    def _kept(self, name: str, widths: Mapping[str, Indices], share: float) -> Indices:
        count = len(widths[name])
        number = min(count, round_channels(count * share))
        return tuple(sorted(self.orders.get(name, widths[name])[:number]))


def elastic(
    base: ArchSpec | str,
    *,
    widths: Sequence[float] = WIDTHS,
    kernels: Sequence[int] = KERNELS,
    importance: Mapping[str, np.ndarray] | None = None,
    share: Callable[[ArchSpec], float] | None = None,
    least: float = 0.0,
) -> Elastic:
    """Return the space of the parts of `base`, or of the network of that name.

    `importance` of channels, as in `compression.importance`, orders those of a block: without it, as for a network that
    is trained from scratch, the first ones are kept. Raises SpecError for shares outside 0..1, for kernels that are
    even or below 3, and for a network without any choice.
    """
    base = as_spec(base)
    if not all(0 < width <= 1 for width in widths):
        raise SpecError(f"widths must be shares of the network's own, above 0 and at most 1; got {tuple(widths)}")
    # TensorFlow's padding does not centre a kernel of 1 on a larger one.
    if not all(type(kernel) is int and kernel >= 3 and kernel % 2 == 1 for kernel in kernels):
        raise SpecError(f"kernels must be odd and at least 3; got {tuple(kernels)}")
    decisions = tuple(_decisions(base, widths, kernels))
    if not decisions:
        raise SpecError(f"an elastic network must have a choice of repeats, widths or kernels; {base.name} has none")
    orders = {name: tuple(np.argsort(-values, kind="stable").tolist()) for name, values in (importance or {}).items()}
    space = Elastic(base=base, decisions=decisions, orders=orders, share=share, least=least)
    return dataclasses.replace(space, baselines=_uniform_parts(space))


def _decisions(base: ArchSpec, widths: Sequence[float], kernels: Sequence[int]) -> Iterator[Decision]:
    for i, blocks in enumerate(base.stages):
        removable = len(list(itertools.takewhile(lambda block: block.residual == "identity", reversed(blocks))))
        largest = max(block.kernel_size for block in blocks)
        depthwise = all(block.rules.depthwise for block in blocks)
        choices: dict[str, set[Any]] = {
            "repeats": set(range(max(1, len(blocks) - removable), len(blocks) + 1)),
            "width": {*widths, 1.0} if any(map(_is_free, blocks)) else set(),
            "kernel": {largest, *(k for k in kernels if depthwise and k < largest)},
        }
        for what, found in choices.items():
            if len(found) > 1:
                yield Decision(name=_name(i, what), choices=tuple(sorted(found)), ordered=True)


def _name(stage: int, what: str) -> str:
    return f"stage {stage + 1} {what}"


def _is_free(block: BlockSpec) -> bool:
    return block.rules.tied_channels(block.in_channels, block.out_channels) is None


def _with_kernel(block: BlockSpec, kernel_size: int) -> BlockSpec:
    return dataclasses.replace(block, kernel_size=min(block.kernel_size, kernel_size))


def _uniform_parts(space: Elastic) -> tuple[Genome, ...]:
    """Return the parts within the budget whose stages are all wide and deep alike, with whole kernels."""
    found: dict[ArchSpec, Genome] = {}
    for width, repeats in itertools.product((0.0, 0.5, 1.0), repeat=2):
        levels = {"width": width, "repeats": repeats, "kernel": 1.0}
        genome = tuple(round(levels[d.name.split()[-1]] * (len(d.choices) - 1)) for d in space.decisions)
        spec = space.network(genome)
        if spec is not None:
            found.setdefault(spec, genome)
    return tuple(found[spec] for spec in sorted(found, key=lambda spec: -cost(spec).macs))


def slices_of(space: Elastic, part: Part) -> dict[str, Slice]:
    """Return the place of every array of a part in the network, by its name in the part."""
    found: dict[str, Slice] = {}
    layers, sources = dict(named_layers(part.spec)), dict(named_layers(space.base))
    origins = kept_origins(space.base, kept_spec(space.base, part.keep), keep=part.keep)
    for name, origin in origins.items():
        layer, source = layers[name], sources[origin.name]
        rows = _index(origin.outputs)
        if layer.op == "norm":
            found |= {f"{name}.{each}": Slice(f"{origin.name}.{each}", rows) for each in _NORM}
        elif layer.op == "channel_conv":
            found[f"{name}.weight"] = Slice(f"{origin.name}.weight", slice(None))
        else:
            columns = None if source.groups > 1 else _index(origin.inputs)
            crop = (source.kernel_size - layer.kernel_size) // 2
            found[f"{name}.weight"] = Slice(f"{origin.name}.weight", rows, columns, crop)
            if layer.bias:
                found[f"{name}.bias"] = Slice(f"{origin.name}.bias", rows)
    return found


def _index(kept: np.ndarray) -> Any:
    """Return an index that takes these channels: a slice, which copies nothing, if they are the first ones."""
    return slice(len(kept)) if np.array_equal(kept, np.arange(len(kept))) else kept


def take(array: Any, where: Slice) -> Any:
    """Return the part of an array, or of a tensor, of the network; gradients of a tensor reach the network's."""
    found = array[where.rows]
    if where.columns is not None:
        found = found[:, where.columns]
    return found[..., where.crop : -where.crop, where.crop : -where.crop] if where.crop else found


def subnet(space: Elastic, *, genome: Genome, state: Mapping[str, Any]) -> tuple[ArchSpec, dict[str, Any]]:
    """Return the network of these choices, and its weights within `state`, the arrays or tensors of the whole network.

    BatchNorm statistics are those of the whole network and must be re-estimated before the part is used.
    """
    part = space.part(genome)
    return part.spec, {name: take(state[where.source], where) for name, where in slices_of(space, part).items()}
