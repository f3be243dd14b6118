"""Networks from the choices of the macro space: stages that differ, for images of any size."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from effnet.arch.scale import round_channels
from effnet.arch.spec import ArchSpec, BlockSpec, stage
from effnet.errors import SpecError
from effnet.planner.space import usable_strides

ATTENTIONS: Mapping[str, Mapping[str, Any]] = {"none": {}, "se": {"se_ratio": 0.25}, "eca": {"eca": True}}
"""The attentions of a block, as arguments of `stage`."""
KINDS = ("mbconv", "fused_mbconv")


class Row(NamedTuple):
    """A stage of the base network; `kind` is that of a block with an expansion, whatever `expand` is."""

    kind: str
    kernel: int
    expand: float
    attention: str
    channels: float
    stride: int
    repeats: int


def rows_of(base: ArchSpec) -> tuple[Row, ...]:
    """Return the stages of a network; raise SpecError if it is not made of MBConv blocks.

    It must be a classifier that reads its last feature map alone.
    """
    if base.pooled:
        raise SpecError(f"the base of a search must read its last feature map alone; {base.name} reads others too")
    if base.decoder is not None:
        raise SpecError(f"the base of a search must be a classifier; {base.name} has a decoder: name its backbone")
    return tuple(_row_of(base, blocks) for blocks in base.stages)


def _row_of(base: ArchSpec, blocks: tuple[BlockSpec, ...]) -> Row:
    block = blocks[-1]
    for kind in KINDS:
        plain = stage(kind, repeats=1, in_channels=8, out_channels=8)[0].kind
        if block.kind in (kind, plain):
            expand = 1.0 if block.kind == plain else block.mid_channels / block.in_channels
            attention = "se" if block.se_channels else "eca" if block.eca_kernel else "none"
            stride = math.prod(b.stride for b in blocks)
            return Row(kind, block.kernel_size, expand, attention, block.out_channels, stride, len(blocks))
    raise SpecError(f"the base of a search must be made of MBConv blocks; {base.name} has {block.kind} blocks")


def uniform(base: ArchSpec, *, resolution: int, depth: float, num_stages: int | None = None) -> dict[str, Any]:
    """Return the choices of `base` scaled uniformly in depth, optionally with its first stages only."""
    repeats = [math.ceil(round(depth * row.repeats, 6)) for row in rows_of(base)]
    kept = len(repeats) if num_stages is None else num_stages
    numbered = enumerate(repeats, 1)
    return {"resolution": resolution} | {f"stage {n} repeats": r if n <= kept else 0 for n, r in numbered}


def assemble(
    base: ArchSpec, choices: Mapping[str, Any], *, short_side: int, width: float = 1.0, divisor: int = 8
) -> ArchSpec | None:
    """Return `base` with these choices, its widths times `width`; None if they leave no stage or no usable stride.

    What is not chosen is as in the base. Widths are multiples of `divisor`. A stage without repeats is left out; its
    stride moves to the next one.
    """

    def widen(channels: float) -> int:
        return round_channels(channels * width, rounding=base.scaling.rounding, divisor=divisor)

    rows = [_chosen(n, row, choices) for n, row in enumerate(rows_of(base), 1)]
    strides = _strides(base, rows, choices, short_side=short_side)
    if strides is None:
        return None
    channels = widen(base.stem.channels * choices.get("stem width", 1.0))
    stem = dataclasses.replace(base.stem, channels=channels, stride=strides[0])
    stages = []
    for row, stride in zip(rows, strides[1:], strict=True):
        if row.repeats:
            blocks = stage(
                row.kind,
                repeats=row.repeats,
                kernel_size=row.kernel,
                stride=stride,
                expand_ratio=row.expand,
                in_channels=channels,
                out_channels=widen(row.channels),
                **ATTENTIONS[row.attention],
            )
            stages.append(blocks)
            channels = blocks[-1].out_channels
    head = base.head_channels and widen(base.head_channels * choices.get("head width", 1.0))
    return dataclasses.replace(
        base, resolution=choices["resolution"], stem=stem, stages=tuple(stages), head_channels=head
    )


def _chosen(n: int, row: Row, choices: Mapping[str, Any]) -> Row:
    """Return the stage of this number with its choices."""
    return Row(
        kind=choices.get(f"stage {n} kind", row.kind),
        kernel=choices.get(f"stage {n} kernel", row.kernel),
        expand=choices.get(f"stage {n} expansion", row.expand),
        attention=choices.get(f"stage {n} attention", row.attention),
        channels=row.channels * choices.get(f"stage {n} width", 1.0),
        stride=row.stride,
        repeats=choices.get(f"stage {n} repeats", row.repeats),
    )


def _strides(base: ArchSpec, rows: Sequence[Row], choices: Mapping[str, Any], *, short_side: int) -> list[int] | None:
    """Return the strides of the stem and of every stage; None if they do not suit the images or the stages."""
    usable = usable_strides(choices["resolution"], whole=base.total_stride, short_side=short_side)
    if not usable or not any(row.repeats for row in rows):
        return None
    total = usable[-1 if choices.get("last map", 4) == 2 else 0]
    strides = [base.stem.stride, *(row.stride for row in rows)]
    # Strides that small images have no room for are removed from the front, as in `with_total_stride`, or from the end.
    late = choices.get("strides", "late") == "late"
    for place in range(len(strides)) if late else reversed(range(len(strides))):
        if math.prod(strides) > total:
            strides[place] = 1
    return _passed_on(strides, [row.repeats for row in rows])


def _passed_on(strides: list[int], repeats: list[int]) -> list[int] | None:
    """Return the strides with those of absent stages moved to the next stage that has none, else to one before."""
    moved = list(strides)
    for place, count in enumerate(repeats, 1):
        if count or strides[place] == 1:
            continue
        moved[place] = 1
        free = [p for p, present in enumerate(repeats, 1) if present and moved[p] == 1]
        if not free:
            return None
        moved[next((p for p in free if p > place), free[-1])] = strides[place]
    return moved
