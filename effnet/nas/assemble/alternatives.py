"""The alternatives of every part of a network, and the networks that a choice of them makes: specs alone, no weights.

A part is a block, by its name, or the head. Alternatives change its inside: the widths between parts stay, so that
every alternative of one part fits every alternative of another.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from effnet.arch.channels import BlockKeep, Indices, Keep, block_name, kept_spec
from effnet.arch.cost import cost
from effnet.arch.spec import Activation, ArchSpec, BlockSpec
from effnet.compression.activations import standins
from effnet.errors import SpecError

HEAD = "head"
SHARES = (0.75, 0.5, 0.35, 0.25)
"""The shares of a part's channels that stay in its narrower alternatives."""

_SMALL_KERNEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One alternative of a part: the number of `channels` of its middle that stay (of a head: of its output), and more.

    `kernel_size`, `se_channels` and `activation` are those of the block's record; of a head they are 0, 0 and empty. Of
    a `dropped` block nothing stays but its shortcut.
    """

    channels: int
    kernel_size: int = 0
    se_channels: int = 0
    activation: Activation | Literal[""] = ""
    dropped: bool = False


Choice = Mapping[str, Alternative]
"""An alternative of each changed part, by the part's name; other parts stay as they are."""


def own(spec: ArchSpec, part: str) -> Alternative:
    """Return the alternative that keeps a part as it is."""
    return Alternative(channels=spec.head_channels) if part == HEAD else _own(_block(spec, part))


def _own(block: BlockSpec) -> Alternative:
    return Alternative(
        channels=block.mid_channels,
        kernel_size=block.kernel_size,
        se_channels=block.se_channels,
        activation=block.activation,
    )


def alternatives(
    spec: ArchSpec, *, shares: Sequence[float] = SHARES, round_to: int = 8
) -> dict[str, tuple[Alternative, ...]]:
    """Return the alternatives of every part in network order; the first one keeps the part.

    These are the combinations of the `shares` of the channels of the middle, rounded to a multiple of `round_to` (if
    the middle has a width of its own), and a 3 x 3 depthwise kernel for a larger one; without squeeze-and-excitation
    and with each replacement of the activation, combined with all channels and with about half of them; and to drop the
    block, if its shortcut is an identity and its stage has others. Of a head that a classifier reads only the width
    changes.
    """
    found = {}
    for i, blocks in enumerate(spec.stages):
        for j, block in enumerate(blocks):
            changed = _of_block(spec, block, shares=shares, round_to=round_to)
            dropped = [dataclasses.replace(_own(block), dropped=True)]
            found[block_name(i, j)] = (*changed, *(dropped if block.residual == "identity" and len(blocks) > 1 else []))
    if spec.head_channels and spec.num_classes:
        widths = _widths(spec.head_channels, shares=shares, round_to=round_to)
        found[HEAD] = tuple(Alternative(channels=width) for width in widths)
    return found


def _of_block(spec: ArchSpec, block: BlockSpec, *, shares: Sequence[float], round_to: int) -> Iterator[Alternative]:
    free = block.rules.tied_channels(block.in_channels, block.out_channels) is None
    widths = _widths(block.mid_channels, shares=shares, round_to=round_to) if free else [block.mid_channels]
    smaller = block.rules.depthwise and block.kernel_size > _SMALL_KERNEL
    kernels = [block.kernel_size, _SMALL_KERNEL] if smaller else [block.kernel_size]
    squeezes = [block.se_channels, 0] if block.se_channels else [0]
    like = dataclasses.replace(spec, activation=block.activation or spec.activation)
    others = [found.activation for found in standins(like)] if _acts(block) else []
    activations = [block.activation, *others]
    half = min(widths, key=lambda width: abs(width - 0.5 * block.mid_channels))
    for number, (activation, squeeze) in enumerate(itertools.product(activations, squeezes)):
        # Each alternative is scored on all images: other forms with every width would take most of the time.
        few = widths if number == 0 else dict.fromkeys((block.mid_channels, half))
        for kernel, width in itertools.product(kernels, few):
            yield Alternative(channels=width, kernel_size=kernel, se_channels=squeeze, activation=activation)


def _acts(block: BlockSpec) -> bool:
    """Return whether a block's activation is inside it alone, so that another changes nothing between blocks."""
    return block.rules.middle in ("expansion", "input")


def _widths(channels: int, *, shares: Sequence[float], round_to: int) -> list[int]:
    """Return the own number of channels and the smaller ones of the shares, without repetition."""
    rounded = (max(round_to, round(share * channels / round_to) * round_to) for share in shares)
    return list(dict.fromkeys([channels, *(width for width in rounded if width < channels)]))


def assembled_spec(spec: ArchSpec, choice: Choice) -> ArchSpec:
    """Return the network of a choice; raise SpecError for one that it cannot have, such as an empty stage."""
    return changed_spec(kept_spec(spec, first_channels(spec, choice)), spec, choice)


def first_channels(spec: ArchSpec, choice: Choice) -> Keep:
    """Return the keep of the first channels, as many as each alternative has; enough for a spec."""
    everything = {part: tuple(range(own(spec, part).channels)) for part in choice}
    return keep_of(spec, choice, everything)


def keep_of(spec: ArchSpec, choice: Choice, order: Mapping[str, Indices]) -> Keep:
    """Return the channels and blocks that stay; `order` has the channels of each changed part, the best first."""

    def best(part: str, width: int) -> Indices:
        found = choice.get(part)
        return tuple(range(width)) if found is None else tuple(sorted(order[part][: found.channels]))

    def block(part: str, block: BlockSpec) -> BlockKeep | None:
        if part in choice and choice[part].dropped:
            return None
        out = tuple(range(block.out_channels))
        return BlockKeep(mid=best(part, block.mid_channels), out=out, se=tuple(range(block.se_channels)))

    return Keep(
        stem=tuple(range(spec.stem.channels)),
        stages=tuple(
            tuple(block(block_name(i, j), found) for j, found in enumerate(blocks))
            for i, blocks in enumerate(spec.stages)
        ),
        head=best(HEAD, spec.head_channels),
    )


def changed_spec(left: ArchSpec, spec: ArchSpec, choice: Choice) -> ArchSpec:
    """Return `left`, the part of `spec` that a choice keeps, with the choice's kernels, squeezes and activations."""
    stages = []
    for i, (was, blocks) in enumerate(zip(spec.stages, left.stages, strict=True)):
        parts = [part for j in range(len(was)) if not _is_gone(choice, part := block_name(i, j))]
        stages.append(tuple(_changed(block, choice.get(part)) for part, block in zip(parts, blocks, strict=True)))
    found = dataclasses.replace(left, stages=tuple(stages))
    if found == spec:
        return spec
    return dataclasses.replace(
        found, lineage=dataclasses.replace(spec.lineage, note="assembled", pruned_macs=cost(found).macs)
    )


def _is_gone(choice: Choice, part: str) -> bool:
    return part in choice and choice[part].dropped


def _changed(block: BlockSpec, found: Alternative | None) -> BlockSpec:
    if found is None:
        return block
    return dataclasses.replace(
        block, kernel_size=found.kernel_size, se_channels=found.se_channels, activation=found.activation
    )


def _block(spec: ArchSpec, part: str) -> BlockSpec:
    try:
        _, stage, block = part.split(".")
        return spec.stages[int(stage)][int(block)]
    except (ValueError, IndexError) as error:
        raise SpecError(f"a part must be a block of {spec.name} or its head; got {part}") from error


def in_words(spec: ArchSpec, part: str, found: Alternative) -> str:
    """Return the change of a part in words, such as "stages.3.1 to 50 % of its channels, kernel 3"."""
    was = own(spec, part)
    if found.dropped:
        return f"{part} dropped"
    words = [f"{found.channels / was.channels:.0%} of its channels"] if found.channels != was.channels else []
    words += [f"kernel {found.kernel_size}"] if found.kernel_size != was.kernel_size else []
    words += ["no squeeze-and-excitation"] if was.se_channels and not found.se_channels else []
    words += [found.activation] if found.activation != was.activation else []
    return f"{part}: {', '.join(words)}" if words else f"{part} kept"
