"""Structured pruning of a spec: which channels and blocks stay, the smaller spec, and which channels are tied."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from effnet.arch.decoders.record import Decoder, Segmenter, UNet
from effnet.arch.layers import CLASSES, INPUT, SHORTCUT_SUM, Layer, layer_widths, named_layers
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import SpecError

Indices = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockKeep:
    """The channels of a block that stay, ascending: of its middle, its output and, if any, its squeezed width."""

    mid: Indices
    out: Indices
    se: Indices = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The channels of every width that stay, as ascending indices; a block that is None is removed as a whole.

    `head` is empty for a network without a head convolution.
    """

    stem: Indices
    stages: tuple[tuple[BlockKeep | None, ...], ...]
    head: Indices = ()


class Tie(NamedTuple):
    """Widths that share their channels, so that a channel stays or is removed in all of them.

    `name` is the first of `widths`, such as "stages.0.1.mid"; `writers` are the convolutions that output these
    channels, `readers` the layers that read them. `fixed` marks features that no classifier of the network reads:
    code outside relies on their number.
    """

    name: str
    channels: int
    widths: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    fixed: bool


def block_name(stage: int, block: int) -> str:
    """Return the common prefix of the names of a block's layers."""
    return f"stages.{stage}.{block}"


def width_channels(spec: ArchSpec) -> dict[str, int]:
    """Return the number of channels of every prunable width, in network order."""
    found = {"stem": spec.stem.channels}
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            name = block_name(i, j)
            found[f"{name}.mid"] = block.mid_channels
            if block.se_channels:
                found[f"{name}.se"] = block.se_channels
            found[f"{name}.out"] = block.out_channels
    if spec.head_channels:
        found["head"] = spec.head_channels
    return found


def tied_widths(spec: ArchSpec) -> tuple[Tie, ...]:
    """Return the widths of `spec` in network order, grouped if they must keep the same channels.

    An identity shortcut ties a block's output to its input. A depthwise_separable block ties its middle to its input, a
    conv block its middle to its output.
    """
    channels = width_channels(spec)
    root = {name: name for name in channels}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    order = {name: number for number, name in enumerate(channels)}
    for first, second in _ties(spec):
        low, high = sorted((find(first), find(second)), key=order.__getitem__)
        root[high] = low
    widths: dict[str, list[str]] = {name: [] for name in channels}
    writers: dict[str, list[str]] = {name: [] for name in channels}
    readers: dict[str, list[str]] = {name: [] for name in channels}
    for name in channels:
        widths[find(name)].append(name)
    layers = dict(named_layers(spec))
    for name, (reads, writes) in layer_widths(spec).items():
        if layers[name].op not in ("conv", "linear"):
            continue
        if writes in root:
            writers[find(writes)].append(name)
        for part in reads.split("+"):  # a concatenation is named after the widths that it joins
            if part in root:
                readers[find(part)].append(name)
    features = {find(name) for name in _features(spec)}
    return tuple(
        Tie(
            name=name,
            channels=channels[name],
            widths=tuple(widths[name]),
            writers=tuple(writers[name]),
            readers=tuple(readers[name]),
            fixed=name in features and not spec.num_classes,
        )
        for name in channels
        if widths[name]
    )


def _features(spec: ArchSpec) -> list[str]:
    """Return the widths of the features that a classifier reads, or would read."""
    stages = [*spec.pooled, len(spec.stages) - 1]
    *others, last = (f"{block_name(stage, len(spec.stages[stage]) - 1)}.out" for stage in stages)
    return [*others, "head" if spec.head_channels else last]


def _ties(spec: ArchSpec) -> Iterator[tuple[str, str]]:
    before = "stem"
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            name = block_name(i, j)
            if block.rules.middle == "input":
                yield before, f"{name}.mid"
            if block.rules.middle == "output":
                yield f"{name}.mid", f"{name}.out"
            if block.residual == "identity":
                yield before, f"{name}.out"
            before = f"{name}.out"


def keep_all(spec: ArchSpec) -> Keep:
    """Return the keep that changes nothing."""
    return keep_from(spec, {name: tuple(range(count)) for name, count in width_channels(spec).items()})


def keep_from(spec: ArchSpec, widths: dict[str, Indices], *, dropped: Sequence[str] = ()) -> Keep:
    """Return the keep of these channels, by the names of `width_channels`, without the blocks named in `dropped`."""
    return Keep(
        stem=widths["stem"],
        stages=tuple(
            tuple(
                None
                if (name := block_name(i, j)) in dropped
                else BlockKeep(mid=widths[f"{name}.mid"], out=widths[f"{name}.out"], se=widths.get(f"{name}.se", ()))
                for j in range(len(blocks))
            )
            for i, blocks in enumerate(spec.stages)
        ),
        head=widths.get("head", ()),
    )


def kept_widths(spec: ArchSpec, keep: Keep) -> dict[str, Indices]:
    """Return the channels that stay, by width name; a removed block has no entries.

    Raises SpecError if `keep` does not belong to `spec`, or leaves layers that do not fit together.
    """
    if [len(row) for row in keep.stages] != [len(row) for row in spec.stages]:
        raise SpecError(
            f"keep must have the blocks of {spec.name}, {[len(row) for row in spec.stages]} in its stages; "
            f"got {[len(row) for row in keep.stages]}"
        )
    found = {"stem": _checked("stem", keep.stem, spec.stem.channels)}
    before = found["stem"]
    for i, (blocks, row) in enumerate(zip(spec.stages, keep.stages, strict=True)):
        for j, (block, kept) in enumerate(zip(blocks, row, strict=True)):
            name = block_name(i, j)
            if kept is None:
                if block.residual != "identity":
                    raise SpecError(f"only a block with an identity shortcut may be removed; {name} has none")
                continue
            found |= _kept_block(name, block, kept, before)
            before = kept.out
        if not any(row):
            raise SpecError(f"a stage must keep a block; stage {i} of {spec.name} keeps none")
    if bool(keep.head) != bool(spec.head_channels):
        raise SpecError(
            f"keep must name head channels if and only if there is a head; {spec.name} has {spec.head_channels}"
        )
    if keep.head:
        found["head"] = _checked("head", keep.head, spec.head_channels)
    found |= {INPUT: tuple(range(spec.in_channels)), CLASSES: tuple(range(spec.num_classes))}
    return found if spec.decoder is None and not spec.pooled else found | _kept_where_read(spec, found)


def _kept_where_read(spec: ArchSpec, kept: dict[str, Indices]) -> dict[str, Indices]:
    """Return the channels of the other widths: all of a decoder's, those that stay of the joined ones.

    A decoder and a pooled stage may read a removed block, whose input passes in its place: its output is in the result.
    """
    passed, before = {}, kept["stem"]
    for i, blocks in enumerate(spec.stages):
        for j in range(len(blocks)):
            before = passed[f"{block_name(i, j)}.out"] = kept.get(f"{block_name(i, j)}.out", before)
    widths = layer_widths(spec)
    counts = {widths[name][1]: layer.out_channels for name, layer in named_layers(spec)}
    found: dict[str, Indices] = {}
    for width, count in counts.items():
        if "+" in width:
            places, start = [], 0
            for part in width.split("+"):
                places += [start + place for place in passed.get(part, kept.get(part, range(counts[part])))]
                start += counts[part]
            found[width] = tuple(places)
        elif width not in kept:
            found[width] = passed.get(width, tuple(range(count)))
    return found


def _kept_block(name: str, block: BlockSpec, kept: BlockKeep, before: Indices) -> dict[str, Indices]:
    found = {
        f"{name}.mid": _checked(f"{name}.mid", kept.mid, block.mid_channels),
        f"{name}.out": _checked(f"{name}.out", kept.out, block.out_channels),
    }
    if bool(kept.se) != bool(block.se_channels):
        raise SpecError(
            f"keep must name squeezed channels if and only if the block has some; {name} has {block.se_channels}"
        )
    if kept.se:
        found[f"{name}.se"] = _checked(f"{name}.se", kept.se, block.se_channels)
    ties = {
        f"the middle and the input of a {block.kind} block": block.rules.middle == "input" and kept.mid != before,
        f"the middle and the output of a {block.kind} block": block.rules.middle == "output" and kept.mid != kept.out,
        "the input and the output of a block with an identity shortcut": (
            block.residual == "identity" and kept.out != before
        ),
    }
    for what, broken in ties.items():
        if broken:
            raise SpecError(f"{what} must keep the same channels; those of {name} do not")
    return found


def _checked(name: str, kept: Indices, channels: int) -> Indices:
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= channels:
        shown = f"{len(kept)}, the first {kept[:4]}" if kept else "none"
        raise SpecError(f"{name} must keep some of the channels 0 to {channels - 1}, ascending; got {shown}")
    return kept


def kept_blocks(keep: Keep) -> dict[str, str]:
    """Return the old name of every block that stays, by its new name after the others are removed."""
    return {
        block_name(i, place): block_name(i, j)
        for i, row in enumerate(keep.stages)
        for place, j in enumerate(j for j, kept in enumerate(row) if kept is not None)
    }


def kept_spec(spec: ArchSpec, keep: Keep) -> ArchSpec:
    """Return the smaller network that `keep` leaves of `spec`; raise SpecError if it does not belong to `spec`.

    The kernel of ECA stays and slides along the channels that are left: a channel whose neighbours are removed sees the
    next ones that stay instead.
    """
    widths = kept_widths(spec, keep)
    width, stages = len(keep.stem), []
    for i, blocks in enumerate(spec.stages):
        row = []
        for j, block in enumerate(blocks):
            if keep.stages[i][j] is None:
                continue
            label = block_name(i, j)
            row.append(
                dataclasses.replace(
                    block,
                    in_channels=width,
                    mid_channels=len(widths[f"{label}.mid"]),
                    out_channels=len(widths[f"{label}.out"]),
                    se_channels=len(widths.get(f"{label}.se", ())),
                )
            )
            width = row[-1].out_channels
        stages.append(tuple(row))
    return dataclasses.replace(
        spec,
        stem=dataclasses.replace(spec.stem, channels=len(keep.stem)),
        stages=tuple(stages),
        head_channels=len(keep.head),
        decoder=_kept_decoder(spec, keep),
    )


def _kept_decoder(spec: ArchSpec, keep: Keep) -> Decoder | None:
    """Return the decoder with the numbers of the blocks that it reads early as they are without the removed ones."""
    decoder = spec.decoder
    if not isinstance(decoder, Segmenter) or not isinstance(decoder.decoder, UNet) or not decoder.decoder.early:
        return decoder
    kept = [block is not None for row in keep.stages for block in row]
    # What reads a removed block reads the one before it, which has the same sides.
    early = tuple((level, sum(kept[: block + 1]) - 1) for level, block in decoder.decoder.early)
    if min(block for _, block in early) < 0:
        raise SpecError(f"the first block must stay in {spec.name}, whose decoder reads it; it is removed")
    return dataclasses.replace(decoder, decoder=dataclasses.replace(decoder.decoder, early=early))


def last_norms(spec: ArchSpec) -> dict[str, str]:
    """Return the BatchNorm whose output, activated or not, is added to the shortcut, of each block with an identity.

    Raises SpecError for a kind of block that adds something else to its shortcut.
    """
    layers, found = dict(named_layers(spec)), {}
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            if block.residual != "identity":
                continue
            prefix = block_name(i, j)
            name = layers[f"{prefix}.{SHORTCUT_SUM}"].inputs[0]
            if layers[name].op == "act":
                name = layers[name].inputs[0]
            if layers[name].op != "norm":
                raise SpecError(f"a {block.kind} block must add a BatchNorm's output to its shortcut; it adds {name}")
            found[prefix] = name
    return found


def weighted(layer: Layer) -> bool:
    """Return whether a layer has parameters."""
    return layer.op in ("conv", "norm", "linear", "channel_conv")
