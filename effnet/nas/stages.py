"""Networks from the choices of the macro space: stages that differ, for images of any size."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from effnet.arch.scale import round_channels
from effnet.arch.spec import ArchSpec, BlockSpec, stage
from effnet.errors import SpecError
from effnet.planner.space import usable_strides

ATTENTIONS = {"none": 0.0, "se": 0.25}
"""The attentions of a block, by the ratio of squeeze-and-excitation."""
KINDS = ("mbconv", "fused_mbconv")


class Row(NamedTuple):
    """A stage of the base network; `kind` is that of a block with an expansion, whatever `expand` is."""

    kind: str
    kernel: int
    expand: float
    attention: str
    channels: int
    stride: int
    repeats: int


def rows_of(base: ArchSpec) -> tuple[Row, ...]:
    """Return the stages of a network; raise SpecError if it is not made of MBConv blocks."""
    return tuple(_row_of(base, blocks) for blocks in base.stages)


def _row_of(base: ArchSpec, blocks: tuple[BlockSpec, ...]) -> Row:
    block = blocks[-1]
    for kind in KINDS:
        plain = stage(kind, repeats=1, in_channels=8, out_channels=8)[0].kind
        if block.kind in (kind, plain):
            expand = 1.0 if block.kind == plain else block.mid_channels / block.in_channels
            attention = "se" if block.se_channels else "none"
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

    resolution, rows = choices["resolution"], rows_of(base)
    repeats = [choices.get(f"stage {n} repeats", row.repeats) for n, row in enumerate(rows, 1)]
    strides = _strides(base, choices, repeats, short_side=short_side)
    if strides is None:
        return None
    stem = dataclasses.replace(
        base.stem, channels=widen(base.stem.channels * choices.get("stem width", 1.0)), stride=strides[0]
    )
    stages, fed = [], stem.channels
    for n, row in enumerate(rows, 1):
        if repeats[n - 1]:
            stages.append(_stage_of(n, row, choices, repeats[n - 1], strides[n], fed, widen))
            fed = stages[-1][-1].out_channels
    head = base.head_channels and widen(base.head_channels * choices.get("head width", 1.0))
    return dataclasses.replace(base, resolution=resolution, stem=stem, stages=tuple(stages), head_channels=head)


def _stage_of(n: int, row: Row, choices: Mapping[str, Any], repeats: int, stride: int, fed: int, widen: Any) -> Any:
    def chosen(what: str, base: Any) -> Any:
        return choices.get(f"stage {n} {what}", base)

    return stage(
        chosen("kind", row.kind),
        repeats=repeats,
        kernel_size=chosen("kernel", row.kernel),
        stride=stride,
        expand_ratio=chosen("expansion", row.expand),
        in_channels=fed,
        out_channels=widen(row.channels * chosen("width", 1.0)),
        se_ratio=ATTENTIONS[chosen("attention", row.attention)],
    )


def _strides(base: ArchSpec, choices: Mapping[str, Any], repeats: list[int], *, short_side: int) -> list[int] | None:
    """Return the strides of the stem and of every stage; None if the resolution does not suit the images."""
    usable = usable_strides(choices["resolution"], whole=base.total_stride, short_side=short_side)
    if not usable or not any(repeats):
        return None
    total = usable[-1 if choices.get("last map", 4) == 2 else 0]
    strides = [base.stem.stride, *(row.stride for row in rows_of(base))]
    # Strides that small images have no room for are removed from the front, as in `with_total_stride`, or from the end.
    order = range(len(strides)) if choices.get("strides", "late") == "late" else reversed(range(len(strides)))
    for place in order:
        if math.prod(strides) > total:
            strides[place] = 1
    return _passed_on(strides, repeats)


def _passed_on(strides: list[int], repeats: list[int]) -> list[int] | None:
    """Return the strides with those of absent stages moved to the next stage that has none, else to one before."""
    present = [place for place, count in enumerate(repeats, 1) if count]
    moved = list(strides)
    for place, count in enumerate(repeats, 1):
        if count or strides[place] == 1:
            continue
        moved[place] = 1
        free = [p for p in present if moved[p] == 1]
        later = [p for p in free if p > place]
        if not free:
            return None
        moved[later[0] if later else free[-1]] = strides[place]
    return moved
