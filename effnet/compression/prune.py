"""Structured pruning of a spec: choose the channels and blocks to keep, from their importance and a limit."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from effnet.arch.channels import Indices, Keep, Tie, block_name, keep_from, kept_spec, tied_widths
from effnet.arch.cost import Count, cost, layer_costs
from effnet.arch.layers import layer_widths, named_layers
from effnet.arch.spec import ArchSpec
from effnet.compression.importance import Importance
from effnet.errors import BudgetError, InputError

Scope = Literal["global", "stage"]
Measure = Callable[[ArchSpec], float]
Fits = Callable[[Mapping[str, int], frozenset[str]], bool]

_AVX512, _OTHERS = 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The smaller network, and the channels and blocks that it keeps of the original."""

    spec: ArchSpec
    keep: Keep


def check_scope(scope: str) -> None:
    """Raise InputError unless `scope` is a known scope of the threshold."""
    if scope not in get_args(Scope):
        raise InputError(f"scope must be one of {', '.join(get_args(Scope))}; got {scope!r}")


COUNTS: dict[Count, str] = {"macs": "multiply-accumulates", "params": "parameters"}


def check_count(count: str) -> None:
    """Raise InputError unless `count` is a quantity that can be limited."""
    if count not in COUNTS:
        raise InputError(f"count must be one of {', '.join(COUNTS)}; got {count!r}")


def count_of(spec: ArchSpec, count: Count = "macs") -> float:
    """Return the multiply-accumulates of one image at the spec's own resolution, or the parameters."""
    return float(getattr(cost(spec), count))


def vector_width() -> int:
    """Return the multiple of channels that ONNX Runtime computes at once on this machine's CPU.

    It stores feature maps in blocks of 16 channels if the CPU has AVX-512 and of 8 otherwise, and pads a width to whole
    blocks: a width between two multiples costs as much as the upper one (measured with 1.32 and AVX-512: convolutions
    with 20, 24, 28 and 32 channels take the same time, with 16 less than half). Source: MlasNchwcGetBlockSize and
    nchwc_transformer.cc in microsoft/onnxruntime.
    """
    flags = Path("/proc/cpuinfo")
    return _AVX512 if flags.is_file() and " avx512f" in flags.read_text(encoding="utf-8") else _OTHERS


def prune(
    spec: ArchSpec,
    *,
    importance: Importance,
    limit: float,
    count: Count = "macs",
    measure: Measure | None = None,
    scope: Scope = "global",
    round_to: int = _OTHERS,
    min_channels: int | None = None,
    drop_blocks: bool = False,
) -> Pruned:
    """Return `spec` without its least important channels and blocks, as large as `limit` allows.

    `count` is the limited quantity, multiply-accumulates or parameters, which also weighs the channels; a `measure`, if
    given, is limited instead, for instance the latency that a profile predicts, and must not fall as channels are
    added. One threshold is found for the whole network: with the scope global on importance (if that is additive, on
    importance per multiply-accumulate or parameter), with stage on ranks within each stage, so that all stages lose the
    same share. The slack left by rounding widths is given back, the most important channels first.

    A pruned width becomes a multiple of `round_to`, and keeps at least `min_channels` (by default `round_to`, and never
    more than it had). With `drop_blocks` whole blocks with an identity shortcut are removed if their importance is
    below the threshold; every stage keeps one. Features without a classifier keep their number.

    Raises BudgetError if even the smallest network is above the limit, InputError for options out of range.
    """
    _check(importance, limit, scope, round_to, min_channels, spec)
    check_count(count)
    least = round_to if min_channels is None else min_channels
    choice = _Choice(spec, importance, scope, count, round_to, least, drop_blocks)

    def of(found: ArchSpec) -> float:
        return count_of(found, count) if measure is None else measure(found)

    def fits(counts: Mapping[str, int], dropped: frozenset[str]) -> bool:
        return of(kept_spec(spec, choice.keep(counts, dropped))) <= limit

    counts, dropped = _find_threshold(choice, fits, limit=limit, measure=of, spec=spec)
    counts, dropped = _give_back(choice, counts, dropped, fits)
    keep = choice.keep(counts, dropped)
    left = kept_spec(spec, keep)
    lineage = spec.lineage if left == spec else dataclasses.replace(spec.lineage, pruned_macs=cost(left).macs)
    return Pruned(spec=dataclasses.replace(left, lineage=lineage), keep=keep)


def _check(
    importance: Importance, limit: float, scope: str, round_to: int, min_channels: int | None, spec: ArchSpec
) -> None:
    check_scope(scope)
    if not limit > 0:
        raise InputError(f"the limit of a pruned network must be above 0; got {limit}")
    for what, value in (("round_to", round_to), ("min_channels", min_channels)):
        if value is not None and (type(value) is not int or value < 1):
            raise InputError(f"{what} must be a whole number of at least 1; got {value!r}")
    wanted = {tie.name: tie.channels for tie in tied_widths(spec)}
    found = {name: len(values) for name, values in importance.channels.items()}
    if found != wanted:
        raise InputError(f"the importance must be that of {spec.name}; it is of another network: compute it again")


class _Choice:
    """The possible results of pruning: a network's ties, their channels' scores, and their allowed counts."""

    def __init__(
        self,
        spec: ArchSpec,
        importance: Importance,
        scope: Scope,
        count: Count,
        round_to: int,
        min_channels: int,
        drop_blocks: bool,
    ) -> None:
        self.spec, self.ties = spec, {tie.name: tie for tie in tied_widths(spec)}
        self.scores, self.block_scores = _scores(spec, self.ties, importance, count)
        if scope == "stage":
            self.scores, self.block_scores = _ranked(self.ties, self.scores, self.block_scores)
        if not drop_blocks:
            self.block_scores = {}
        self.allowed = {tie.name: _allowed(tie, round_to, min_channels) for tie in self.ties.values()}
        # Best first; ties in index order.
        self.order = {name: np.argsort(-values, kind="stable") for name, values in self.scores.items()}

    def counts(self, threshold: float) -> dict[str, int]:
        """Return for every tie the allowed count nearest to its number of channels at or above the threshold."""
        found = {}
        for name, values in self.scores.items():
            allowed = self.allowed[name]
            count = int((values >= threshold).sum())
            found[name] = int(allowed[np.abs(allowed - count).argmin()])
        return found

    def dropped(self, threshold: float) -> frozenset[str]:
        """Return the blocks below the threshold, except the best block of a stage that would lose all."""
        gone = {name for name, value in self.block_scores.items() if value < threshold}
        for i, blocks in enumerate(self.spec.stages):
            names = [block_name(i, j) for j in range(len(blocks))]
            if gone.issuperset(names):
                gone.discard(max(names, key=self.block_scores.__getitem__))
        return frozenset(gone)

    def more(self, name: str, count: int) -> int:
        """Return the next larger allowed count of a tie; the same count if it has all channels."""
        above = self.allowed[name][self.allowed[name] > count]
        return int(above[0]) if len(above) else count

    def keep(self, counts: Mapping[str, int], dropped: frozenset[str]) -> Keep:
        """Return the best channels of each tie, as many as `counts` says."""
        widths: dict[str, Indices] = {}
        for name, count in counts.items():
            kept = tuple(sorted(self.order[name][:count].tolist()))
            widths |= dict.fromkeys(self.ties[name].widths, kept)
        return keep_from(self.spec, widths, dropped=sorted(dropped))


def _allowed(tie: Tie, round_to: int, min_channels: int) -> np.ndarray:
    if tie.fixed:
        return np.array([tie.channels])
    least = -(-min_channels // round_to) * round_to
    return np.array([*range(least, tie.channels, round_to), tie.channels])


def _scores(
    spec: ArchSpec, ties: Mapping[str, Tie], importance: Importance, count: Count
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return the scores to compare with the threshold: importance, if additive divided by the channel's count."""
    channels = {name: np.asarray(values, np.float64) for name, values in importance.channels.items()}
    if not importance.additive:
        return channels, dict(importance.blocks)
    per_channel, per_block = _counts(spec, ties, count)
    return (
        {name: values / per_channel[name] for name, values in channels.items()},
        {name: value / per_block[name] for name, value in importance.blocks.items()},
    )


def _counts(spec: ArchSpec, ties: Mapping[str, Tie], count: Count) -> tuple[dict[str, float], dict[str, float]]:
    """Return the multiply-accumulates or parameters of one channel of each tie, and of each block."""
    owners = {width: tie.name for tie in ties.values() for width in tie.widths}
    channels = dict.fromkeys(ties, 0.0)
    blocks: dict[str, float] = {}
    widths, layers = layer_widths(spec), dict(named_layers(spec))
    for row in layer_costs(spec):
        number = getattr(row, count)
        if not number:
            continue
        if row.name.startswith("stages."):
            name = ".".join(row.name.split(".")[:3])
            blocks[name] = blocks.get(name, 0.0) + number
        reads, writes = widths[row.name]
        if writes in owners:
            channels[owners[writes]] += number / row.out_channels
        if reads != writes and layers[row.name].groups == 1:  # depthwise: one input per output
            for part in reads.split("+"):  # a decoder's concatenation is named after the widths that it joins
                if part in owners:
                    channels[owners[part]] += number / row.in_channels
    return channels, blocks


def _ranked(
    ties: Mapping[str, Tie], scores: Mapping[str, np.ndarray], blocks: Mapping[str, float]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return for every score the share of its stage's channels below it."""
    # Channels shared by several stages belong to the last of them.
    stages = {name: _stage_of(ties[name].widths[-1]) for name in scores}
    pools = {
        stage: np.sort(np.concatenate([values for name, values in scores.items() if stages[name] == stage]))
        for stage in set(stages.values())
    }
    whole = np.sort(np.concatenate([*scores.values()]))  # for a stage without channels of its own

    def rank(stage: str, values: np.ndarray) -> np.ndarray:
        pool = pools.get(stage, whole)
        return np.searchsorted(pool, values) / len(pool)

    return (
        {name: rank(stages[name], values) for name, values in scores.items()},
        {name: float(rank(_stage_of(name), np.array([value]))[0]) for name, value in blocks.items()},
    )


def _stage_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _find_threshold(
    choice: _Choice, fits: Fits, *, limit: float, measure: Measure, spec: ArchSpec
) -> tuple[dict[str, int], frozenset[str]]:
    """Return the counts and dropped blocks of the lowest threshold that meets the limit, by bisection.

    A block is large: if dropping the last blocks would remove too much, they stay, and channels are removed instead.
    """
    values = np.unique(np.concatenate([*choice.scores.values(), np.array([*choice.block_scores.values()])]))
    thresholds = [-np.inf, *values.tolist(), np.inf]
    if fits(choice.counts(-np.inf), frozenset()):
        return choice.counts(-np.inf), frozenset()
    counts, dropped = choice.counts(np.inf), choice.dropped(np.inf)
    if not fits(counts, dropped):
        raise BudgetError(
            f"{spec.name} cannot be pruned to {limit:.4g}: the smallest network with these options has "
            f"{measure(kept_spec(spec, choice.keep(counts, dropped))):.4g}; allow that much, a smaller round_to or "
            "min_channels, or dropping whole blocks"
        )
    threshold = thresholds[_bisect(thresholds, lambda value: fits(choice.counts(value), choice.dropped(value)))]
    dropped = choice.dropped(threshold)
    everything = choice.counts(-np.inf)
    for name in sorted(dropped, key=choice.block_scores.__getitem__, reverse=True):
        if not fits(everything, dropped):
            break
        if fits(counts, dropped - {name}):
            dropped -= {name}
    if fits(everything, dropped):
        return everything, dropped
    return choice.counts(thresholds[_bisect(thresholds, lambda value: fits(choice.counts(value), dropped))]), dropped


def _bisect(thresholds: Sequence[float], fits: Callable[[float], bool]) -> int:
    """Return the index of the lowest threshold that fits; the first does not fit, and the last does."""
    low, high = 0, len(thresholds) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(thresholds[middle]) else (middle, high)
    return high


def _give_back(
    choice: _Choice,
    counts: dict[str, int],
    dropped: frozenset[str],
    fits: Fits,
) -> tuple[dict[str, int], frozenset[str]]:
    """Return counts and dropped blocks after giving back what still fits below the limit, the most important first."""

    def steps() -> dict[str, float]:
        """Return what could be given back, each tie's next channels and each block, with its importance."""
        found = {name: choice.block_scores[name] for name in dropped}
        for name, count in counts.items():
            more = choice.more(name, count)
            if more > count and not _inside(name, dropped):
                found[name] = float(choice.scores[name][choice.order[name][count:more]].mean())
        return found

    closed: set[str] = set()  # what does not fit now will not fit once others have more
    while worth := {name: value for name, value in sorted(steps().items()) if name not in closed}:
        best = max(worth, key=worth.__getitem__)
        if best in dropped:
            more = counts, dropped - {best}
        else:
            more = counts | {best: choice.more(best, counts[best])}, dropped
        if fits(*more):
            counts, dropped = more
        else:
            closed.add(best)
    return counts, dropped


def _inside(name: str, dropped: frozenset[str]) -> bool:
    """Return whether a tie is inside a dropped block."""
    return name.endswith((".mid", ".se")) and name.rpartition(".")[0] in dropped
